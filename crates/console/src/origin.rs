//! The address by which browsers reach a console through a proxy.

use std::fmt;
use std::str::FromStr;

/// An origin, as browsers name it: `https://relay.example`, with a port where that is not the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    host: String,
}

impl Origin {
    /// Whether the proxy speaks TLS to browsers.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// What the header `Host` says of it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.secure { "s" } else { "" }, self.host)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no origin: it looks like https://relay.example");
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let host = host.strip_suffix('/').unwrap_or(host).to_ascii_lowercase();
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self { secure, host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host_and_nothing_else() {
        for (text, shown) in [
            ("https://Relay.example", "https://relay.example"),
            ("https://relay.example:8443/", "https://relay.example:8443"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(text.parse::<Origin>().expect("an origin").to_string(), shown);
        }
        for wrong in ["relay.example", "ftp://a", "https://", "https://a/b", "https://a b"] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}
