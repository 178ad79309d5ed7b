//! How the server answers: lists in pages, watches, patches, and what goes wrong with each.

use super::http::{self, Answer, Request};
use super::{Mishap, Shared, State, TICK};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, MutexGuard};
use std::thread;

impl State {
    pub(super) fn put(&mut self, mut node: Value) {
        self.version += 1;
        node["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        let kind = match self.nodes.insert(name, node.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        self.changes.push((self.version, kind, node));
    }

    /// Takes what is to go wrong next, if it is one of these.
    fn mishap(&mut self, any: impl Fn(Mishap) -> bool) -> Option<Mishap> {
        self.mishaps.front().copied().filter(|next| any(*next))?;
        self.mishaps.pop_front()
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn accept(self: Arc<Self>, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        loop {
            let state = self.state();
            let (state, _) = self.changed.wait_timeout(state, TICK).unwrap();
            if state.is_over {
                return;
            }
            if !state.is_up {
                listener = None;
                continue;
            }
            drop(state);
            let open = listener.get_or_insert_with(|| TcpListener::bind(address).unwrap());
            open.set_nonblocking(true).unwrap();
            while let Ok((connection, _)) = open.accept() {
                connection.set_nonblocking(false).unwrap();
                let mut state = self.state();
                state.connections.push(connection.try_clone().unwrap());
                let era = state.era;
                drop(state);
                let shared = Arc::clone(&self);
                thread::spawn(move || shared.talk(connection, era));
            }
        }
    }

    fn talk(&self, mut connection: TcpStream, era: u64) {
        while let Some(request) = http::read(&mut connection) {
            let mut state = self.state();
            if state.era != era {
                return;
            }
            state
                .requests
                .push(format!("{} {}", request.method, request.target));
            let code = match state.mishap(|next| matches!(next, Mishap::Code(_))) {
                Some(Mishap::Code(code)) => Some(code),
                _ if state.token.is_some() && request.token != state.token => Some(401),
                _ => None,
            };
            drop(state);
            let is_watch = request.method == "GET" && request.asks("watch") == Some("true".to_owned());
            let goes_on = match code {
                Some(code) => Answer::status(code, "refused, as the test wants it").send(&mut connection),
                None if is_watch => self.watch(&request, &mut connection, era),
                None => self.answer(&request).send(&mut connection),
            };
            if goes_on.is_none() {
                let _ = connection.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), path.as_slice()) {
            ("GET", ["api", "v1", "nodes"]) => self.list(request),
            ("PATCH", ["api", "v1", "nodes", name, "status"]) => self.patch_status(name, request),
            ("POST", ["apis", "events.k8s.io", "v1", "namespaces", "default", "events"]) => {
                let event = request.body();
                let name = event["metadata"]["name"].as_str().unwrap().to_owned();
                self.state().events.insert(name, event.clone());
                Answer::json(&event)
            }
            (
                "PATCH",
                [
                    "apis",
                    "events.k8s.io",
                    "v1",
                    "namespaces",
                    "default",
                    "events",
                    name,
                ],
            ) => {
                assert_eq!(request.content, "application/merge-patch+json");
                let mut state = self.state();
                let Some(event) = state.events.get_mut(*name) else {
                    return Answer::status(404, "no such event");
                };
                event["series"] = request.body()["series"].clone();
                Answer::json(event)
            }
            _ => Answer::status(404, "no such thing"),
        }
    }

    fn patch_status(&self, name: &str, request: &Request) -> Answer {
        assert_eq!(request.content, "application/strategic-merge-patch+json");
        let mut state = self.state();
        let Some(mut node) = state.nodes.get(name).cloned() else {
            return Answer::status(404, "no such Node");
        };
        let all = node["status"]["conditions"].as_array_mut().unwrap();
        for condition in request.body()["status"]["conditions"].as_array().unwrap() {
            all.retain(|other| other["type"] != condition["type"]);
            all.push(condition.clone());
        }
        state.put(node.clone());
        drop(state);
        self.changed.notify_all();
        Answer::json(&node)
    }

    fn list(&self, request: &Request) -> Answer {
        let mut state = self.state();
        let is_later = request.asks("continue").is_some();
        let (mut items, version) = match request.asks("continue") {
            Some(_) if state.mishap(|next| next == Mishap::OldPage).is_some() => {
                return Answer::status(410, "the continue parameter is too old");
            }
            Some(token) => state.pages.remove(&token).unwrap(),
            None => (state.nodes.values().cloned().collect(), state.version),
        };
        if !is_later {
            let mishap = state.mishap(|next| match next {
                Mishap::EmptyList => request.asks("fieldSelector").is_none(),
                next => matches!(next, Mishap::GarbledList | Mishap::CutList),
            });
            match mishap {
                Some(Mishap::GarbledList) => return Answer::text("<html>no list</html>"),
                Some(Mishap::CutList) => return Answer::cut(&list_of(&items, version, "")),
                Some(Mishap::EmptyList) => items.clear(),
                _ => {}
            }
        }
        items.retain(|node| request.wants(node));
        let limit = request
            .asks("limit")
            .map_or(usize::MAX, |text| text.parse().unwrap());
        let rest = items.split_off(limit.min(items.len()));
        let mut token = String::new();
        if !rest.is_empty() {
            token = format!("{version}-{}", rest.len());
            state.pages.insert(token.clone(), (rest, version));
        }
        Answer::json(&list_of(&items, version, &token))
    }

    /// Streams changes until something ends it; `None`: the connection is of no use any more.
    fn watch(&self, request: &Request, connection: &mut TcpStream, era: u64) -> Option<()> {
        let mut seen: u64 = request.asks("resourceVersion").unwrap().parse().unwrap();
        assert_eq!(request.asks("allowWatchBookmarks").as_deref(), Some("true"));
        http::begin_stream(connection)?;
        loop {
            let state = self.state();
            let (mut state, _) = self.changed.wait_timeout(state, TICK).unwrap();
            if state.era != era {
                return None;
            }
            if seen < state.oldest {
                drop(state);
                let gone = json!({"type": "ERROR", "object": http::status(410, "too old resource version")});
                http::chunk(connection, &format!("{gone}\n"))?;
                return http::end_stream(connection);
            }
            let next: Vec<_> = state
                .changes
                .iter()
                .filter(|(version, ..)| *version > seen)
                .cloned()
                .collect();
            let is_wanted = |kind: &str, node: &Value| kind == "BOOKMARK" || request.wants(node);
            let mut lines = Vec::new();
            for (version, kind, object) in next {
                seen = version;
                if is_wanted(kind, &object) {
                    lines.push(format!("{}\n", json!({"type": kind, "object": object})));
                }
            }
            if lines.is_empty() {
                continue;
            }
            let mishap = state.mishap(|next| matches!(next, Mishap::CutChange | Mishap::GarbledChange));
            drop(state);
            match mishap {
                Some(Mishap::CutChange) => {
                    http::chunk(connection, &lines[0][..lines[0].len() / 2])?;
                    return None;
                }
                Some(_) => http::chunk(connection, "}{ no JSON\n")?,
                None => {}
            }
            for line in lines {
                http::chunk(connection, &line)?;
            }
        }
    }
}

fn list_of(items: &[Value], version: u64, token: &str) -> Value {
    json!({
        "kind": "NodeList", "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string(), "continue": token},
        "items": items,
    })
}
