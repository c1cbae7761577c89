//! The head of a response: whether an answer follows, and if not, why.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use hubbub_actors::ports::UpstreamError;
use hubbub_protocol::Timestamp;
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::refusal::Refusal;

/// The body of an answer as it comes.
pub(super) type Body = BoxStream<'static, reqwest::Result<Bytes>>;

/// Most bytes of a refusal that are read, and most time for it: its codes and words come first.
const REFUSAL_BYTES: usize = 16 * 1024;
const REFUSAL_WAIT: Duration = Duration::from_millis(500);

/// An upstream that asks for a longer pause is as good as down.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// A request that is not answered.
pub(super) struct Refused {
    pub(super) error: UpstreamError,
    /// Why, mostly in the upstream's words.
    pub(super) said: String,
}

/// The body of an answer that is one. What its type is called tells nothing: streams are sent as plain
/// text and pages as streams, so what it is shows in the reading.
pub(super) async fn accepted(response: Response) -> Result<Body, Refused> {
    let status = response.status();
    let refused = |error, said: &str| Refused {
        error,
        said: said.to_owned(),
    };
    if !status.is_success() {
        return Err(refusal(response).await);
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        return Err(refused(UpstreamError::Garbage, "the response has no body"));
    }
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let said = "the response is compressed, though nobody asked for it";
        return Err(refused(UpstreamError::Misconfigured, said));
    }
    Ok(response.bytes_stream().boxed())
}

async fn refusal(mut response: Response) -> Refused {
    let status = response.status().as_u16();
    let pause = retry_after(response.headers());
    let mut body = Vec::new();
    let reading = async {
        while body.len() < REFUSAL_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
    };
    // What has come by then must do.
    drop(tokio::time::timeout(REFUSAL_WAIT, reading).await);
    let refusal = Refusal::of_response(status, &body);
    Refused {
        error: refusal.error(pause),
        said: refusal.said(),
    }
}

/// The pause an upstream asks for: in milliseconds, in seconds, or until a date. A date is compared
/// with the one the response was sent at, so that its clock need not agree with ours.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let date = |name: &str| httpdate::parse_http_date(text(name)?).ok();
    let until_date = || {
        let now = date(DATE.as_str()).unwrap_or_else(now);
        let until = date(RETRY_AFTER.as_str())?;
        Some(until.duration_since(now).unwrap_or_default())
    };
    let pause = number("retry-after-ms")
        .map(|ms| ms / 1_000.0)
        .or_else(|| number(RETRY_AFTER.as_str()))
        .map_or_else(until_date, |seconds| {
            Duration::try_from_secs_f64(seconds).ok()
        })?;
    Some(pause.min(LONGEST_PAUSE))
}

fn now() -> std::time::SystemTime {
    let ms = u64::try_from(Timestamp::now().unix_ms()).unwrap_or_default();
    std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read_in_every_form() {
        let pause = |headers: &[(&'static str, &str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            retry_after(&headers.collect())
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause(&[("retry-after", "3")]), seconds(3));
        assert_eq!(
            pause(&[("retry-after", " 0.25 ")]),
            Some(Duration::from_millis(250))
        );
        assert_eq!(
            pause(&[("retry-after", "3"), ("retry-after-ms", "250")]),
            Some(Duration::from_millis(250))
        );
        let (date, later) = (
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wed, 21 Oct 2015 07:28:20 GMT",
        );
        assert_eq!(
            pause(&[("date", date), ("retry-after", later)]),
            seconds(20)
        );
        assert_eq!(pause(&[("date", later), ("retry-after", date)]), seconds(0));
        assert_eq!(
            pause(&[("retry-after", date)]),
            seconds(0),
            "by our own clock"
        );
        assert_eq!(
            pause(&[("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT")]),
            seconds(3_600)
        );
        for nonsense in ["-1", "1e300", "soon", "", "NaN"] {
            assert_eq!(pause(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }
}
