//! A kernel as its agents see it: over HTTP.

use serde_json::Value;

use super::Kernel;
use crate::http::{Connection, Events, Response, request};

impl Kernel {
    /// # Panics
    /// The kernel does not listen.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::tcp(self.addr).expect("the kernel takes connections")
    }

    /// Sends bytes as they are, and reads what comes.
    ///
    /// # Panics
    /// No answer comes.
    #[must_use]
    pub fn raw(&self, bytes: &[u8]) -> Response {
        let mut connection = self.connect();
        // A refusal may come, and the connection go, before everything is sent.
        let _ = connection.send(bytes);
        connection.response().expect("an answer")
    }

    #[must_use]
    pub fn get(&self, target: &str, token: &str) -> Response {
        let authorization = format!("Bearer {token}");
        self.raw(&request(
            "GET",
            target,
            &[("authorization", &authorization)],
            b"",
        ))
    }

    /// A request's bytes; `target` is one of the governed routes.
    #[must_use]
    pub fn post_bytes(
        target: &str,
        token: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Vec<u8> {
        let authorization = format!("Bearer {token}");
        let mut all = vec![
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        all.extend(headers);
        let body = body.to_string();
        request("POST", target, &all, body.as_bytes())
    }

    /// A chat request's bytes.
    #[must_use]
    pub fn chat_bytes(token: &str, body: &Value, headers: &[(&str, &str)]) -> Vec<u8> {
        Self::post_bytes("/v1/chat/completions", token, body, headers)
    }

    /// One request on a connection of its own.
    #[must_use]
    pub fn post(&self, target: &str, token: &str, body: &Value) -> Response {
        self.raw(&Self::post_bytes(target, token, body, &[]))
    }

    /// One streamed request to any route.
    ///
    /// # Panics
    /// No answer comes.
    #[must_use]
    pub fn post_stream(&self, target: &str, token: &str, body: &Value) -> Events {
        let mut connection = self.connect();
        connection
            .send(&Self::post_bytes(target, token, body, &[]))
            .expect("the request is taken");
        connection.events().expect("an answer's head")
    }

    /// One chat request on a connection of its own.
    #[must_use]
    pub fn chat(&self, token: &str, body: &Value) -> Response {
        self.chat_with(token, body, &[])
    }

    #[must_use]
    pub fn chat_with(&self, token: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        self.raw(&Self::chat_bytes(token, body, headers))
    }

    /// One streamed chat request.
    ///
    /// # Panics
    /// No answer comes.
    #[must_use]
    pub fn chat_stream(&self, token: &str, body: &Value) -> Events {
        self.post_stream("/v1/chat/completions", token, body)
    }
}
