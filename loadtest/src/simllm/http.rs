//! Just enough HTTP/1.1: requests with a `Content-Length`, answers whole or in chunks.
//!
//! By hand because one process must write 50,000 tokens a second in 50,000 writes on well under a
//! core, which leaves no room for a general server between the timer and the socket.

use std::io::Write as _;

/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Largest body of a request, in bytes: a long prompt.
const BODY_BYTES: usize = 4 * 1024 * 1024;
/// Most header fields of a request.
const HEADERS: usize = 64;

/// One request, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// Why bytes are not a request: the status to answer before closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest(pub u16);

/// Takes one whole request off the front of `buffer`; `None` when more bytes are needed.
pub fn take_request(buffer: &mut Vec<u8>) -> Result<Option<Request>, BadRequest> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut fields);
    let head_bytes = match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() <= HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(BadRequest(431)),
        Err(_) => return Err(BadRequest(400)),
    };
    let mut keep_alive = head.version == Some(1);
    let mut body_bytes = 0;
    for field in head.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.parse::<usize>().map_err(|_| BadRequest(400))?;
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(BadRequest(411));
        } else if field.name.eq_ignore_ascii_case("connection") {
            keep_alive = keep_alive && !value.eq_ignore_ascii_case("close");
        }
    }
    if body_bytes > BODY_BYTES {
        return Err(BadRequest(413));
    }
    let Some(body) = buffer.get(head_bytes..head_bytes + body_bytes) else {
        return Ok(None);
    };
    let target = head.path.unwrap_or_default();
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        keep_alive,
        body: body.to_vec(),
    };
    buffer.drain(..head_bytes + body_bytes);
    Ok(Some(request))
}

/// The words of the statuses this server answers with.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

/// A whole answer with a JSON body.
pub fn json_answer(status: u16, body: &str, keep_alive: bool) -> Vec<u8> {
    let retry = if status == 429 {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\n{retry}Connection: {}\r\nContent-Length: {}\r\n\r\n{body}",
        reason(status),
        connection(keep_alive),
        body.len(),
    )
    .into_bytes()
}

/// The head of an answer in chunks.
pub fn stream_head(media_type: &str, keep_alive: bool) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nCache-Control: no-cache\r\nConnection: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        connection(keep_alive),
    )
    .into_bytes()
}

/// Appends `payload` to `out` as one chunk.
pub fn push_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    // Writing to a vector cannot fail.
    write!(out, "{:x}\r\n", payload.len()).unwrap_or_default();
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// The chunk that ends an answer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "keep-alive" } else { "close" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_one_by_one_and_only_when_whole() {
        let text = "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET /h HTTP/1.1\r\nConnection: Close\r\n\r\n";
        for cut in 0..text.find("GET").unwrap() {
            let mut partial = text.as_bytes()[..cut].to_vec();
            assert_eq!(take_request(&mut partial), Ok(None), "cut at {cut}");
        }
        let mut buffer = text.as_bytes().to_vec();
        let first = take_request(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str()),
            ("POST", "/v1/x")
        );
        assert_eq!(
            (first.body.as_slice(), first.keep_alive),
            (b"{}".as_slice(), true)
        );
        let second = take_request(&mut buffer).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.keep_alive), ("/h", false));
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_too_big_or_not_http_is_refused() {
        let refuse = |text: &str| take_request(&mut text.as_bytes().to_vec()).unwrap_err().0;
        assert_eq!(refuse("\u{1}\u{2} nonsense\r\n\r\n"), 400);
        assert_eq!(
            refuse("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"),
            413
        );
        assert_eq!(
            refuse("POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n"),
            400
        );
        assert_eq!(
            refuse("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            411
        );
        assert_eq!(refuse(&format!("GET /{} ", "x".repeat(HEAD_BYTES))), 431);
    }

    #[test]
    fn chunks_carry_their_length_in_hexadecimal() {
        let mut out = Vec::new();
        push_chunk(&mut out, b"0123456789abcdefg");
        assert_eq!(out, b"11\r\n0123456789abcdefg\r\n");
    }
}
