//! The JSON-RPC 2.0 envelope (<https://www.jsonrpc.org/specification>), without batches.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A call as it is read: the parameters stay raw until the method is known.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    #[serde(borrow)]
    pub jsonrpc: Cow<'a, str>,
    /// Absent for a notification, which is not answered.
    pub id: Option<u64>,
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

/// A call as it is written.
#[derive(Debug, Serialize)]
pub struct Outgoing<'a, P: Serialize + ?Sized> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: &'a P,
}

impl<'a, P: Serialize + ?Sized> Outgoing<'a, P> {
    pub fn call(id: u64, method: &'a str, params: &'a P) -> Self {
        Self {
            jsonrpc: "2.0",
            id: Some(id),
            method,
            params,
        }
    }

    pub fn notification(method: &'a str, params: &'a P) -> Self {
        Self {
            jsonrpc: "2.0",
            id: None,
            method,
            params,
        }
    }
}

/// An answer as it is written.
#[derive(Debug, Serialize)]
pub struct Answer<'a, R: Serialize + ?Sized> {
    jsonrpc: &'static str,
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

impl<'a, R: Serialize + ?Sized> Answer<'a, R> {
    pub fn result(id: u64, result: &'a R) -> Self {
        Self {
            jsonrpc: "2.0",
            id: Some(id),
            result: Some(result),
            error: None,
        }
    }
}

impl<'a> Answer<'a, ()> {
    pub fn error(id: Option<u64>, error: &'a RpcError) -> Self {
        Self {
            jsonrpc: "2.0",
            id,
            result: None,
            error: Some(error),
        }
    }
}

/// An answer as it is read.
#[derive(Debug, Deserialize)]
pub struct Reply<'a> {
    pub id: Option<u64>,
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    #[serde(default)]
    pub error: Option<RpcError>,
}

/// What went wrong with a call, as the other side may see it. Inner detail is only logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    pub code: i32,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// The stable error codes. Those of JSON-RPC itself, then AEX's own.
pub mod code {
    pub const PARSE_ERROR: i32 = -32700;
    pub const INVALID_REQUEST: i32 = -32600;
    pub const METHOD_NOT_FOUND: i32 = -32601;
    pub const INVALID_PARAMS: i32 = -32602;
    pub const INTERNAL: i32 = -32603;
    /// The method is outside the role of this socket.
    pub const NOT_PERMITTED: i32 = -32001;
    /// No such agent, token, model or hold.
    pub const NOT_FOUND: i32 = -32002;
    /// The name is taken, or the change contradicts what is there.
    pub const CONFLICT: i32 = -32003;
    /// The kernel cannot decide now (ledger locked, disk full, stopping): try again.
    pub const UNAVAILABLE: i32 = -32004;
    /// A configuration was refused; the old one stays in force.
    pub const BAD_CONFIG: i32 = -32005;
}

impl RpcError {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }
}
