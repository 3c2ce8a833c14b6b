//! A program that speaks HTTP to a console: one request a connection, nothing added by a library.

#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Says what a page may do, and has nothing in it that this does not allow.
    #[track_caller]
    pub fn is_closed(&self, path: &str) {
        let policy = self.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{path}");
        assert!(!self.body.contains("<script>"), "{path}: {}", self.body);
        // A style or a handler in an attribute would be against the policy.
        assert!(!self.body.contains(" style=") && !self.body.contains(" onclick="), "{path}");
    }

    /// The body as JSON, of a request that went well.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }
}

/// A console, and what is shown to it with every request.
#[derive(Clone, Debug)]
pub struct Client {
    /// `127.0.0.1:port`.
    pub host: String,
    pub headers: Vec<(String, String)>,
}

impl Client {
    /// Somebody who has nothing to show.
    pub fn stranger(origin: &str) -> Self {
        let host = origin.trim_start_matches("http://").split('/').next().expect("a host");
        Self { host: host.to_owned(), headers: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with the session that a one-time address gives.
    pub fn entered(self, url: &str) -> Self {
        let path = &url[url.find("/enter").expect("a path")..];
        let cookie = self.get(path).header("set-cookie").expect("a session").to_owned();
        self.with("Cookie", cookie.split(';').next().expect("a value"))
    }

    /// Server-sent events, from now on.
    pub fn listen(&self, path: &str) -> Events {
        let mut lines = BufReader::new(self.request("GET", path, None));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(lines.read_line(&mut line).expect("it is answered") > 0, "no head");
        }
        Events(lines)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    pub fn post(&self, path: &str, form: &str) -> Answer {
        self.ask("POST", path, Some(("application/x-www-form-urlencoded", form)))
    }

    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, Some(("application/json", &body.to_string())))
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Answer {
        let mut answer = Vec::new();
        self.request(method, path, body).read_to_end(&mut answer).expect("it is answered");
        parsed(&String::from_utf8_lossy(&answer))
    }

    fn request(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).expect("the console listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            request += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        if let Some((kind, body)) = body {
            request += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body.map_or("", |(_, body)| body);
        stream.write_all(request.as_bytes()).expect("it is sent");
        stream
    }
}

/// What is told as it happens.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// The data of the next event of that name.
    #[track_caller]
    pub fn next(&mut self, name: &str) -> Value {
        let (mut line, mut of) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("it is told in time") > 0, "it ended");
            if let Some(event) = line.strip_prefix("event: ") {
                of = event.trim_end().to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ").filter(|_| of == name) {
                return serde_json::from_str(data).unwrap_or_else(|_| panic!("{line}"));
            }
        }
    }
}

fn parsed(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Answer { status: status.expect("a status"), headers: headers.collect(), body: body.to_owned() }
}
