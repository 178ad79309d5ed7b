//! Who may speak: the socket's peer, as the kernel knows it (SO_PEERCRED, unix(7)).

use super::guests::Guest;
use super::refusal;
use tonic::{Code, Request, Status};

/// User and group ids that may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids: the peer's own group, not its supplementary ones, which SO_PEERCRED does not tell.
    pub gids: Vec<u32>,
}

impl Allowed {
    /// Lets a request pass, or refuses it with the peer's ids.
    pub fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request
            .extensions()
            .get::<Guest>()
            .and_then(|guest| guest.credentials.peer_cred);
        match peer {
            Some(peer) if self.uids.contains(&peer.uid()) || self.gids.contains(&peer.gid()) => Ok(request),
            Some(peer) => {
                let (uid, gid) = (peer.uid().to_string(), peer.gid().to_string());
                let text = format!(
                    "uid {uid} gid {gid} is not on the allow-list ([socket] allowed_uids, allowed_gids)"
                );
                Err(refusal::status(
                    Code::PermissionDenied,
                    "PEER_DENIED",
                    text,
                    &[("uid", &uid), ("gid", &gid)],
                    None,
                ))
            }
            None => {
                let text = "the peer's credentials are not known".to_owned();
                Err(refusal::status(
                    Code::PermissionDenied,
                    "PEER_DENIED",
                    text,
                    &[],
                    None,
                ))
            }
        }
    }
}
