use proptest::prelude::*;

use super::*;

/// Events as `name=data`, lines as `|line`, signs of life as `~`.
fn items(chunks: &[&[u8]]) -> Result<Vec<String>, TooLarge> {
    let mut parser = SseParser::default();
    let mut seen = Vec::new();
    let mut take = |item: Item<'_>| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        seen.push(match item {
            Item::KeepAlive => "~".to_owned(),
            Item::Event { name, data } => format!("{}={}", text(name), text(data)),
            Item::Line(line) => format!("|{}", text(line)),
        });
    };
    for chunk in chunks {
        parser.feed(chunk, &mut take)?;
    }
    parser.finish(&mut take)?;
    Ok(seen)
}

fn parse(text: &str) -> Vec<String> {
    items(&[text.as_bytes()]).unwrap()
}

const STREAM: &str = "\u{feff}: hello\r\ndata: {\"a\":\"žluťoučký 🐎\"}\r\n\r\nevent: x\ndata:1\n\
    data: 2\ndata\n\nid: 7\n\nretry: 1\rdata:  two\r\rdatax: no\n\ndata: [DONE]\n\ndata: unfinished";

#[test]
fn events_are_split_as_the_standard_says() {
    let events = [
        "~",
        "={\"a\":\"žluťoučký 🐎\"}",
        "x=1\n2\n",
        "~",
        "~",
        "~",
        "= two",
        "|datax: no",
        "~",
        "=[DONE]",
        "=unfinished",
    ];
    assert_eq!(parse(STREAM), events);
}

// M4
#[test]
fn careless_streams_are_split_by_what_is_meant() {
    let objects = ["={\"a\":1}", "={\"b\":2}", "=[DONE]"];
    assert_eq!(
        parse("data: {\"a\":1}\ndata: {\"b\":2}\ndata: [DONE]\n"),
        objects
    );
    assert_eq!(
        parse("Data : {\"a\":1}\n\n  data:{\"b\":2}\n \t\ndata:[DONE]"),
        objects
    );
    assert_eq!(
        parse("data: {\"a\":\ndata: 1}\n\n"),
        ["={\"a\":\n1}"],
        "one object in two lines"
    );
    assert_eq!(parse("data:\n\ndata\n\n"), ["=", "="]);
    assert_eq!(
        parse("event: error\ndata: x\n\ndata: y\n\n"),
        ["error=x", "=y"]
    );
    assert_eq!(
        parse("data: x\nevent: error\ndata: y\n\n"),
        ["=x", "error=y"]
    );
    assert_eq!(
        parse("error: {\"code\":500}\n\n"),
        ["error={\"code\":500}", "~"]
    );
    assert_eq!(
        parse("{\"error\": 1}\n<html>\n"),
        ["|{\"error\": 1}", "|<html>"]
    );
    assert_eq!(
        parse("event: ping\n\ndata: 1\n\n"),
        ["~", "=1"],
        "a name without data"
    );
}

#[test]
fn a_split_at_any_two_bytes_gives_the_same_events() {
    let (bytes, whole) = (STREAM.as_bytes(), parse(STREAM));
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(
                items(&parts).unwrap(),
                whole,
                "split at {first} and {second}"
            );
        }
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(items(&single).unwrap(), whole);
}

#[test]
fn memory_is_bounded() {
    let mut parser = SseParser::default();
    let chunk = vec![b'x'; 64 * 1024];
    let endless_line = (0..100).find_map(|_| parser.feed(&chunk, |_| ()).err());
    assert_eq!(endless_line, Some(TooLarge));
    assert!(parser.line.len() <= MAX_EVENT_BYTES);

    let mut parser = SseParser::default();
    let line = [b"data: ".as_slice(), &chunk, b"\n"].concat();
    let endless_event = (0..100).find_map(|_| parser.feed(&line, |_| ()).err());
    assert_eq!(endless_event, Some(TooLarge));
    assert!(parser.event.data.len() <= MAX_EVENT_BYTES);

    let mut parser = SseParser::default();
    let name = [b"event: ".as_slice(), &chunk, b"\n"].concat();
    parser.feed(&name, |_| ()).unwrap();
    assert!(parser.event.name.len() <= MAX_NAME_BYTES);
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_give_the_same_items(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), any::<u8>()],
            0..200,
        ),
        lines in "(data: ?[a-zč{}]{0,4}(\n|\r|\r\n){1,2}){0,6}",
        size in 1_usize..20,
    ) {
        let bytes = [lines.as_bytes(), &bytes].concat();
        let chunks: Vec<_> = bytes.chunks(size).collect();
        prop_assert_eq!(items(&chunks), items(&[&bytes]));
    }
}
