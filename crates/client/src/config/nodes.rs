//! Reads addresses and lists of them.

use evenkeel_protocol::Endpoint;

use super::error::Problem;

/// Reads `host:port`; the host is a name or an address and nothing else.
pub(super) fn endpoint(text: &str, default_port: u16) -> Result<Endpoint, Problem> {
    const EXPECTED: &str = "host:port with a port from 1 to 65535";
    let text = text.trim();
    let wrong = || Problem::expected(EXPECTED, text);
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"/@?#,\"'\\".contains(c);
    if !text.chars().all(is_plain) || text.starts_with("unix:") {
        return Err(wrong());
    }
    Endpoint::parse_with_default_port(text, default_port).map_err(|_why| wrong())
}

/// Reads a list parted by commas.
pub(super) fn list(text: &str, default_port: u16) -> Result<Vec<Endpoint>, Problem> {
    text.split(',').map(|part| endpoint(part, default_port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_spaces_default_ports_and_ipv6() {
        let read = list("a:1, b ,[::1]:7", 6379).unwrap();
        let shown: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "b:6379", "[::1]:7"]);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in ["", "a:1,", ",", "a:0", "a:70000", "a:x", "redis://a:1", "a b:1", "a:1/0"] {
            assert!(matches!(list(bad, 1), Err(Problem::Expected { .. })), "{bad}");
        }
    }
}
