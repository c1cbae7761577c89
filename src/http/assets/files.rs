//! The widget's files, embedded in the binary, as browsers may keep and unpack them.

use std::borrow::Cow;
use std::iter;

use actix_web::http::header::{
    self, AcceptEncoding, CacheControl, CacheDirective, Encoding, EntityTag, Header, IfNoneMatch,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use hubbub_protocol::ErrorCode;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::problem::ApiError;

/// `npm run build` in `widget/` makes these, each also packed; without it the server runs, and says so
/// when asked.
#[derive(RustEmbed)]
#[folder = "widget/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: ApiError = ApiError::new(
    ErrorCode::NotFound,
    "the widget is not part of this build (make widget)",
);

/// Bytes of the hash in the name of a file that never changes; as in widget/scripts/build.mjs.
const NAME_BYTES: usize = 4;
/// How long the loader is not asked for again: so long after an update pages may have the old one.
const LOADER_S: u32 = 300;
/// What "for ever" is usually written as: a year.
const FOR_EVER_S: u32 = 31_536_000;

/// How long a browser may go on without asking.
#[derive(Clone, Copy)]
pub(super) enum Keeping<'a> {
    /// It asks each time, and is told whether anything changed.
    Asking,
    /// For some minutes.
    Shortly,
    /// For ever, if the name asked for has the hash of what is here. Another node of another version may
    /// have named it: then this node's file is the better answer than none.
    Hashed(&'a str),
}

/// A text of the widget.
///
/// # Errors
/// `not_found` when the widget was not built.
pub(super) fn text(name: &str) -> Result<String, ApiError> {
    let file = Dist::get(name).ok_or(NOT_BUILT)?;
    String::from_utf8(file.data.into_owned()).map_err(|_| NOT_BUILT)
}

/// A file, packed as the browser likes it; 304 while it has it already.
///
/// # Errors
/// `not_found` when the widget was not built.
pub(super) fn file(
    request: &HttpRequest,
    name: &str,
    kind: &'static str,
    keeping: Keeping<'_>,
) -> Result<HttpResponse, ApiError> {
    let file = Dist::get(name).ok_or(NOT_BUILT)?;
    let hash = file.metadata.sha256_hash();
    let hash = u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default());
    let hash = format!("{hash:016x}");
    let (packing, data) = packed(request, name, file);
    // Each packing is another sequence of bytes, and so needs a tag of its own.
    let suffix = packing.map(|packing| format!("-{packing}"));
    let tag = EntityTag::new_strong(format!("{hash}{}", suffix.unwrap_or_default()));
    let is_known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|one| one.weak_eq(&tag)),
        Err(_) => false,
    };
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header(header::ETag(tag))
        .insert_header(cache(keeping, &hash))
        .insert_header((header::VARY, "accept-encoding"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header(("cross-origin-resource-policy", "cross-origin"));
    if is_known {
        return Ok(response.finish());
    }
    Ok(with_body(response.content_type(kind), packing, data))
}

fn with_body(
    response: &mut HttpResponseBuilder,
    packing: Option<&'static str>,
    data: Cow<'static, [u8]>,
) -> HttpResponse {
    if let Some(packing) = packing {
        response.insert_header((header::CONTENT_ENCODING, packing));
    }
    response.body(data.into_owned())
}

fn cache(keeping: Keeping<'_>, hash: &str) -> CacheControl {
    CacheControl(match keeping {
        Keeping::Hashed(name) if hash.get(..2 * NAME_BYTES) == Some(name) => vec![
            CacheDirective::Public,
            CacheDirective::MaxAge(FOR_EVER_S),
            CacheDirective::Extension("immutable".to_owned(), None),
        ],
        Keeping::Shortly => vec![CacheDirective::Public, CacheDirective::MaxAge(LOADER_S)],
        Keeping::Asking | Keeping::Hashed(_) => vec![CacheDirective::NoCache],
    })
}

/// The smallest form of a file that the browser unpacks.
fn packed(
    request: &HttpRequest,
    name: &str,
    plain: EmbeddedFile,
) -> (Option<&'static str>, Cow<'static, [u8]>) {
    let accepted = AcceptEncoding::parse(request).ok();
    for (encoding, packing, ending) in [
        (Encoding::brotli(), "br", "br"),
        (Encoding::gzip(), "gzip", "gz"),
    ] {
        let agreed = accepted
            .as_ref()
            .and_then(|accepted| accepted.negotiate(iter::once(&encoding)));
        if agreed == Some(encoding)
            && let Some(file) = Dist::get(&format!("{name}.{ending}"))
        {
            return (Some(packing), file.data);
        }
    }
    (None, plain.data)
}
