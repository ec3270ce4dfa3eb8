//! Which web pages may open a session: exact comparison of the `Origin` header.

/// The origins that may connect.
///
/// With an empty list a request is let in when it has no `Origin` header (no browser sent it) or when the
/// origin is the gateway's own, as named by the `Host` header. The entry `*` lets every page in.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedOrigins {
    any: bool,
    exact: Vec<String>,
}

impl AllowedOrigins {
    pub(crate) fn new(list: &[String]) -> Self {
        Self {
            any: list.iter().any(|entry| entry == "*"),
            exact: list.iter().map(|entry| normal(entry)).collect(),
        }
    }

    /// Whether a page of `origin` may talk to the gateway reached as `host`.
    pub(crate) fn allows(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let origin = normal(origin);
        if self.exact.contains(&origin) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        matches!(scheme, "http" | "https")
            && authority == without_default_port(scheme, &host.to_ascii_lowercase())
    }
}

/// Lower case, and without the scheme's own port, as browsers write it.
fn normal(origin: &str) -> String {
    let lower = origin.to_ascii_lowercase();
    match lower.split_once("://") {
        Some((scheme, authority)) => format!("{scheme}://{}", without_default_port(scheme, authority)),
        None => lower,
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::AllowedOrigins;

    #[test]
    fn the_default_is_same_origin_only() {
        let origins = AllowedOrigins::new(&[]);
        assert!(origins.allows(None, "example.com"));
        assert!(origins.allows(Some("http://example.com"), "example.com"));
        assert!(origins.allows(Some("https://Example.com"), "example.COM:443"));
        assert!(origins.allows(Some("http://example.com:8000"), "example.com:8000"));
        for other in [
            "null",
            "",
            "http://evil-example.com",
            "http://example.com.evil.com",
            "http://example.com:8001",
            "http://sub.example.com",
            "file://example.com",
            "http://example.com/",
        ] {
            assert!(!origins.allows(Some(other), "example.com"), "{other}");
        }
    }

    #[test]
    fn a_list_is_exact() {
        let origins =
            AllowedOrigins::new(&["https://App.example.com".to_owned(), "https://b.org:443".to_owned()]);
        assert!(origins.allows(Some("https://app.example.com"), "gw"));
        assert!(origins.allows(Some("https://app.example.com:443"), "gw"));
        assert!(origins.allows(Some("https://b.org"), "gw"));
        for other in
            ["http://app.example.com", "https://app.example.com:444", "https://xn--pp-xka.example.com"]
        {
            assert!(!origins.allows(Some(other), "gw"), "{other}");
        }
        assert!(AllowedOrigins::new(&["*".to_owned()]).allows(Some("null"), "gw"));
    }
}
