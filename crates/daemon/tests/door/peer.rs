//! Who may speak: the allow-list holds for every service.

use crate::played::{Door, Played, open};
use crate::raw::{METHODS, call};
use daemon::door::peer::Allowed;
use tonic::Code;
use tonic_types::StatusExt as _;

const OTHERS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/nobody.Knows/This",
];

fn own() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

async fn is_let_in(door: &Door) -> bool {
    match call(&door.channel, METHODS[2], Vec::new()).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::PermissionDenied);
            false
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_not_on_the_list_is_refused_by_every_service() {
    let desk = Played::default();
    let (uid, gid) = own();
    let allowed = Allowed {
        uids: vec![uid.wrapping_add(1)],
        gids: vec![gid.wrapping_add(1)],
    };
    let door = open(&desk, allowed);
    for method in METHODS.iter().chain(&OTHERS) {
        let status = call(&door.channel, method, Vec::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
        let text =
            format!("uid {uid} gid {gid} is not on the allow-list ([socket] allowed_uids, allowed_gids)");
        assert_eq!(status.message(), text, "{method}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "PEER_DENIED");
        assert_eq!(
            (&info.metadata["uid"], &info.metadata["gid"]),
            (&uid.to_string(), &gid.to_string())
        );
    }
    assert_eq!(desk.asked(), 0);
}

#[tokio::test]
async fn either_the_user_or_the_group_is_enough() {
    let (uid, gid) = own();
    for (uids, gids, expected) in [
        (vec![], vec![], false),
        (vec![uid], vec![], true),
        (vec![], vec![gid], true),
        (vec![uid.wrapping_add(1), uid], vec![gid.wrapping_add(1)], true),
    ] {
        let allowed = Allowed { uids, gids };
        let what = format!("{allowed:?}");
        let door = open(&Played::default(), allowed);
        assert_eq!(is_let_in(&door).await, expected, "{what}");
    }
}
