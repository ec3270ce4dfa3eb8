//! The replies that every decoder reads.

/// One workload: bytes as a server sends them.
pub struct Wire {
    pub bytes: Vec<u8>,
    /// Replies in it: costs are given for one.
    pub replies: usize,
    /// Bytes that arrive at once.
    pub chunk: usize,
    /// RESP3, which hiredis before 1.0 cannot read.
    pub resp3: bool,
}

fn whole(bytes: Vec<u8>, replies: usize) -> Wire {
    let chunk = bytes.len();
    Wire { bytes, replies, chunk, resp3: false }
}

fn bulk(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn array(count: usize) -> Vec<u8> {
    let mut out = format!("*{count}\r\n").into_bytes();
    for _ in 0..count {
        bulk(&mut out, &[b'x'; 64]);
    }
    out
}

fn fields(head: &str) -> Vec<u8> {
    let mut out = head.as_bytes().to_vec();
    for index in 0..1000 {
        bulk(&mut out, format!("field:{index:06}").as_bytes());
        bulk(&mut out, format!("value:{index:058}").as_bytes());
    }
    out
}

fn nested() -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..100 {
        out.extend_from_slice("*1\r\n".repeat(8).as_bytes());
        out.extend_from_slice(b":1\r\n");
    }
    out
}

/// The workload of a row, by the row's name without `typed-`.
pub fn wire(row: &str) -> Option<Wire> {
    let (name, chunk) = match row.rsplit_once('-') {
        Some((name, "1k")) => (name, Some(1024)),
        Some((name, "4k")) => (name, Some(4096)),
        Some((name, "16k")) => (name, Some(16 * 1024)),
        Some((name, "64k")) => (name, Some(64 * 1024)),
        _ => (row, None),
    };
    let mut wire = match name {
        "ok" => whole(b"+OK\r\n".repeat(1000), 1000),
        "int" => whole(b":1\r\n".repeat(1000), 1000),
        "bulk64" => {
            let mut one = Vec::new();
            bulk(&mut one, &[b'x'; 64]);
            whole(one.repeat(1000), 1000)
        }
        "bulk1m" => {
            let mut one = Vec::new();
            bulk(&mut one, &vec![b'x'; 1 << 20]);
            whole(one, 1)
        }
        "array100" => whole(array(100), 1),
        "array10000" => whole(array(10_000), 1),
        "map1000" => Wire { resp3: true, ..whole(fields("%1000\r\n"), 1) },
        "flat1000" => whole(fields("*2000\r\n"), 1),
        "nested8" => whole(nested(), 100),
        _ => return None,
    };
    if let Some(chunk) = chunk {
        wire.chunk = chunk;
    }
    Some(wire)
}
