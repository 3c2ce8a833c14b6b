//! Hosts that actions call: what the relay's configuration says of them, and one plain request.
//!
//! The configuration names them: `[host.NAME]` with `url`, `timeout`, and `ca`
//! where the host's certificate is signed by an authority of its own. The body is signed whichever way
//! it goes. No redirect is followed, and no proxy that the environment names.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::FILE;
use crate::engine::Fetch;

/// How long a host may take, unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a host is asked that does not answer, or says that it is in trouble.
const ATTEMPTS: usize = 3;
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// What of an answer is read, and told to who called, in bytes.
const TOLD: u64 = 4 * 1024;
/// Requests that a host is sent at once; others wait, and hold up no other host.
const AT_ONCE: usize = 8;

/// The hosts by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(BTreeMap<String, Host>);

#[derive(Clone, Debug)]
struct Host {
    /// What comes before the path of a call.
    url: String,
    timeout: Duration,
    agent: Agent,
    slots: Arc<Semaphore>,
}

impl Hosts {
    /// Reads the table of hosts; files that it names lie in that directory.
    pub(crate) fn parse(table: &toml::Table, directory: &Path) -> Result<Self, String> {
        let hosts = table.iter().map(|(name, host)| {
            let host = host.as_table().ok_or_else(|| format!("`host.{name}` is no table"))?;
            Ok((name.clone(), Host::parse(name, host, directory)?))
        });
        hosts.collect::<Result<_, String>>().map(Self)
    }
}

impl Hosts {
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
            match host.post(fetch).await {
                Err(ureq::Error::Timeout(_)) => {
                    failed = format!("no answer within {} s", host.timeout.as_secs());
                }
                Err(error) => failed = error.to_string(),
                Ok((200..300, said)) => return Ok(said),
                Ok((status @ 300..400, _)) => {
                    return Err(format!(
                        "`{}` redirects ({status}), which is not followed",
                        fetch.host
                    ));
                }
                Ok((status @ 400..500, said)) => {
                    return Err(format!("`{}` refuses ({status}): {said}", fetch.host));
                }
                Ok((status, said)) => failed = format!("{status}: {said}"),
            }
        }
        Err(format!(
            "`{}` was asked {ATTEMPTS} times ({failed}): it may have done it all the same",
            fetch.host
        ))
    }
}

impl Host {
    fn parse(name: &str, table: &toml::Table, directory: &Path) -> Result<Self, String> {
        if let Some(key) = table.keys().find(|key| !["url", "timeout", "ca"].contains(&&***key)) {
            return Err(format!(
                "unknown key `host.{name}.{key}`: known are `url`, `timeout` and `ca`"
            ));
        }
        let url = table.get("url").and_then(toml::Value::as_str);
        let url = url.ok_or_else(|| format!("`host.{name}` needs `url = \"https://…\"`"))?;
        let url = address(url).map_err(|why| format!("`host.{name}.url`: {why}"))?;
        let timeout = match table.get("timeout") {
            None => TIMEOUT,
            Some(value) => {
                let seconds = value.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok());
                let seconds: Option<u64> = seconds.filter(|seconds| (1..=300).contains(seconds));
                let unclear = || format!("`host.{name}.timeout`: write \"1s\" to \"300s\"");
                Duration::from_secs(seconds.ok_or_else(unclear)?)
            }
        };
        let mut tls = TlsConfig::builder();
        if let Some(ca) = table.get("ca") {
            let wrong = |why: &str| format!("`host.{name}.ca`: {why}");
            let file = ca.as_str().ok_or_else(|| wrong("it is the name of a file in PEM"))?;
            let file = directory.join(file);
            let roots = authorities(&file)
                .map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .tls_config(tls.build())
            .user_agent(concat!("fieldkeep/", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            url,
            timeout,
            agent: config.build().new_agent(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// One request: the status, and what is said with it.
    async fn post(&self, fetch: &Fetch) -> Result<(u16, String), ureq::Error> {
        let _slot = self.slots.acquire().await;
        let Fetch { path, key, body, signer, signature, .. } = fetch;
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .content_type("application/json")
            .header("Idempotency-Key", key)
            .header("Fieldkeep-Key", signer)
            .header("Fieldkeep-Signature", signature);
        let body = body.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let answer = request.send(body)?;
            let (parts, body) = answer.into_parts();
            let mut said = Vec::new();
            body.into_reader().take(TOLD).read_to_end(&mut said)?;
            Ok((parts.status.as_u16(), String::from_utf8_lossy(&said).into_owned()))
        });
        asked.await.unwrap_or_else(|gone| Err(std::io::Error::other(gone).into()))
    }
}

/// An address that is asked over HTTP, without the slashes at its end.
pub(crate) fn address(url: &str) -> Result<String, &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or("it begins with https:// or http://, nothing else is spoken")?;
    let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#".contains(&byte));
    let read = url.parse::<ureq::http::Uri>().is_ok();
    if !plain || !read || rest.starts_with(['/', ':']) || rest.is_empty() {
        return Err("it is no address");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The certificates in a file.
fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(root) = item.map_err(|error| error.to_string())? {
            roots.push(root);
        }
    }
    if roots.is_empty() { Err("there is no certificate in it".into()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_what_means_nothing_is_an_error() {
        let parse = |text: &str| Hosts::parse(&text.parse().expect("TOML"), Path::new("/nowhere"));
        let hosts = parse("[erp]\nurl = \"http://erp.local/api/\"\ntimeout = \"3s\"\n");
        let hosts = hosts.expect("it is clear");
        let erp = &hosts.0["erp"];
        assert_eq!((&*erp.url, erp.timeout), ("http://erp.local/api", Duration::from_secs(3)));
        assert!(parse("[erp]\nurl = \"https://erp.local:8443\"\n").is_ok());
        for wrong in [
            "a = 1",
            "[a]",
            "[a]\nurl = \"ftp://a\"",
            "[a]\nurl = \"https://\"",
            "[a]\nurl = \"https://a\"\nca = 5",
            "[a]\nurl = \"https://a\"\nca = \"absent.pem\"",
            "[a]\nurl = \"http://user@a\"",
            "[a]\nurl = \"http://a\"\ntimeout = 5",
            "[a]\nurl = \"http://a\"\nretries = 5",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
