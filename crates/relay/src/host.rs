//! Hosts that actions call: what the relay's configuration says of them, and one plain request.
//!
//! `relay.toml` in the relay's directory names them: `[host.NAME]` with `url` and `timeout`. Only
//! `http://` is spoken: a host on another machine is reached through a proxy or a tunnel on this one,
//! and the body is signed in any case. No redirect is followed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engine::Fetch;

/// The configuration, in the relay's directory.
const FILE: &str = "relay.toml";
/// How long a host may take, unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a host is asked that does not answer, or says that it is in trouble.
const ATTEMPTS: usize = 3;
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest answer that is read, in bytes.
const ANSWER: u64 = 256 * 1024;
/// What of it is told to who called, in bytes.
const TOLD: usize = 4 * 1024;

/// The hosts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts(BTreeMap<String, Host>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// Name or address, and port.
    authority: String,
    /// What comes before the path of a call.
    base: String,
    timeout: Duration,
}

/// Why a relay's configuration is not to be understood.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It says something that means nothing.
    #[error("{}: {problem}", file.display())]
    Unclear {
        /// The file.
        file: PathBuf,
        /// What.
        problem: String,
    },
}

impl Hosts {
    /// Reads the configuration of a directory; none if there is no file.
    pub(crate) fn read(directory: &Path) -> Result<Self, ConfigError> {
        let file = directory.join(FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                Self::parse(&text).map_err(|problem| ConfigError::Unclear { file, problem })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Io { file, error }),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        if let Some(key) = table.keys().find(|key| *key != "host") {
            return Err(format!("unknown key `{key}`: known is `host`"));
        }
        let hosts = table.get("host").map(|hosts| hosts.as_table().ok_or("`host` is no table"));
        let hosts = hosts.transpose()?.into_iter().flatten().map(|(name, host)| {
            let host = host.as_table().ok_or_else(|| format!("`host.{name}` is no table"))?;
            Ok((name.clone(), Host::parse(name, host)?))
        });
        hosts.collect::<Result<_, String>>().map(Self)
    }

    /// Asks a host, and again where it does not answer; what it says.
    ///
    /// # Errors
    /// Why nothing came of it, for who called.
    pub(crate) async fn fetch(&self, fetch: &Fetch) -> Result<String, String> {
        let Some(host) = self.0.get(&fetch.host) else {
            return Err(format!(
                "the relay's {FILE} has no `[host.{}]`: whoever runs the relay can add it",
                fetch.host
            ));
        };
        let mut failed = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match tokio::time::timeout(host.timeout, host.post(fetch)).await {
                Err(_) => failed = format!("no answer within {} s", host.timeout.as_secs_f32()),
                Ok(Err(error)) => failed = error.to_string(),
                Ok(Ok((200..300, said))) => return Ok(said),
                Ok(Ok((status @ 300..400, _))) => {
                    return Err(format!(
                        "`{}` redirects ({status}), which is not followed",
                        fetch.host
                    ));
                }
                Ok(Ok((status @ 400..500, said))) => {
                    return Err(format!("`{}` refuses ({status}): {said}", fetch.host));
                }
                Ok(Ok((status, said))) => failed = format!("{status}: {said}"),
            }
        }
        Err(format!(
            "`{}` was asked {ATTEMPTS} times ({failed}): it may have done it all the same",
            fetch.host
        ))
    }
}

impl Host {
    fn parse(name: &str, table: &toml::Table) -> Result<Self, String> {
        if let Some(key) = table.keys().find(|key| !["url", "timeout"].contains(&key.as_str())) {
            return Err(format!("unknown key `host.{name}.{key}`: known are `url` and `timeout`"));
        }
        let url = table.get("url").and_then(toml::Value::as_str);
        let url = url.ok_or_else(|| format!("`host.{name}` needs `url = \"http://…\"`"))?;
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!(
                "`host.{name}.url`: only http:// is spoken; a proxy on this machine may add TLS"
            )
        })?;
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !plain(rest) {
            return Err(format!("`host.{name}.url` is no address"));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let timeout = match table.get("timeout") {
            None => TIMEOUT,
            Some(value) => {
                let seconds = value.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok());
                let seconds: Option<u64> = seconds.filter(|seconds| (1..=300).contains(seconds));
                let unclear = || format!("`host.{name}.timeout`: write \"1s\" to \"300s\"");
                Duration::from_secs(seconds.ok_or_else(unclear)?)
            }
        };
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { authority, base, timeout })
    }

    /// One request: HTTP/1.0, so that the answer ends with the connection.
    async fn post(&self, fetch: &Fetch) -> std::io::Result<(u16, String)> {
        let Fetch { path, key, body, signer, signature, .. } = fetch;
        let mut stream = TcpStream::connect(&self.authority).await?;
        let request = format!(
            "POST {}{path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nIdempotency-Key: {key}\r\nFieldkeep-Key: {signer}\r\n\
             Fieldkeep-Signature: {signature}\r\nConnection: close\r\n\r\n{body}",
            self.base,
            self.authority,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let malformed = || std::io::Error::other("it does not speak HTTP");
        let (head, said) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let mut said = said.to_owned();
        said.truncate(said.floor_char_boundary(TOLD));
        Ok((status.ok_or_else(malformed)?, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_what_means_nothing_is_an_error() {
        let hosts = Hosts::parse("[host.erp]\nurl = \"http://erp.local/api/\"\ntimeout = \"3s\"\n");
        let hosts = hosts.expect("it is clear");
        let erp = &hosts.0["erp"];
        assert_eq!((&*erp.authority, &*erp.base), ("erp.local:80", "/api"));
        assert_eq!(erp.timeout, Duration::from_secs(3));
        for wrong in [
            "hosts = 1",
            "[host.a]",
            "[host.a]\nurl = \"https://a\"",
            "[host.a]\nurl = \"http://user@a\"",
            "[host.a]\nurl = \"http://a\"\ntimeout = 5",
            "[host.a]\nurl = \"http://a\"\nretries = 5",
        ] {
            assert!(Hosts::parse(wrong).is_err(), "{wrong}");
        }
    }
}
