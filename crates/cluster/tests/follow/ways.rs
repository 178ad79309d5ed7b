//! By which way, and as whom, a server is asked.

use crate::api_server::{ApiServer, node};
use crate::follower::{Follower, OF_A, OWN_NODE, PREFIXES, ROUTES, a, is_watched};

#[test]
fn a_token_that_is_rotated_is_read_again() {
    let server = ApiServer::start();
    server.put(a());
    server.require("old");
    let follower = Follower::with(&server, "{tokenFile: FOLDER/token}", ROUTES);
    follower.expect(PREFIXES, OF_A);
    is_watched(&server);
    server.require("new");
    server.go_away();
    server.come_back();
    follower.expect_trouble("the API server refuses: refused, as the test wants it (401)");
    std::fs::write(follower.folder.path().join("token"), "new").unwrap();
    server.put(node("a", 1, &["10.9.0.0/24"], &[]));
    follower.expect(PREFIXES, "10.9.0.0/24");
    assert_eq!(
        server.asked_for_all().0,
        1,
        "who was not let in asks on where it was"
    );
}

#[test]
fn what_there_is_no_way_by_is_said_and_is_tried_again() {
    let server = ApiServer::start();
    server.put(a());
    let follower = Follower::with(
        &server,
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true}}",
        ROUTES,
    );
    follower.expect_trouble("the daemon starts no program");
    let kubeconfig = follower.folder.path().join("kubeconfig");
    std::fs::remove_file(&kubeconfig).unwrap();
    follower.expect_trouble("No such file or directory");
    std::fs::write(&kubeconfig, "nonsense: [").unwrap();
    follower.expect_trouble("kubeconfig: failed to parse");
    std::fs::write(&kubeconfig, server.kubeconfig("{}")).unwrap();
    follower.expect(PREFIXES, OF_A);
    let outside = Follower::of(tempfile::tempdir().unwrap(), None, OWN_NODE);
    outside.expect_trouble("no service account of a pod is there");
}
