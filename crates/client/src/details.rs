//! What a refusal says for programs: google.rpc.ErrorInfo and RetryInfo inside a google.rpc.Status, of whose other details
//! the daemon sends none (google/rpc/error_details.proto).

use prost::Message;
use std::collections::HashMap;
use std::time::Duration;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Details {
    pub(crate) reason: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

#[derive(Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// A google.protobuf.Duration.
#[derive(Clone, Copy, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What cannot be read is as good as not there: the refusal stands without it.
pub(crate) fn read(status: &[u8]) -> Details {
    let mut found = Details::default();
    for any in Status::decode(status).unwrap_or_default().details {
        match any.type_url.as_str() {
            "type.googleapis.com/google.rpc.ErrorInfo" => {
                let info = ErrorInfo::decode(&*any.value).unwrap_or_default();
                (found.reason, found.metadata) = (info.reason, info.metadata);
            }
            "type.googleapis.com/google.rpc.RetryInfo" => {
                let delay = RetryInfo::decode(&*any.value)
                    .ok()
                    .and_then(|info| info.retry_delay);
                found.retry_after = delay.and_then(|delay| {
                    let seconds = u64::try_from(delay.seconds).ok()?;
                    Some(Duration::new(seconds, u32::try_from(delay.nanos).ok()?))
                });
            }
            _ => {}
        }
    }
    found
}
