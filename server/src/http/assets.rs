//! The files of the build: style sheet, script and WebAssembly of the islands, the icon.
//!
//! Owns: names, types, caching, compression. Must not know pages: an unknown file is 404, never a page (C13).
//!
//! Release builds carry the files inside the binary; debug builds read them from the same folder at each request.

use app::types::Assets;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use rust_embed::RustEmbed;
use serde::Deserialize;

use super::error::Problem;

#[derive(RustEmbed)]
#[folder = "../target/site"]
#[allow_missing = true]
struct Site;

const ICON: &str = include_str!("favicon.svg");

/// A name with a hash in it never means other content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Why the list of files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// Not the list this server knows.
    #[error("manifest.json of the built files cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It names a file that is not there.
    #[error("manifest.json names {0}, which is not among the built files")]
    Missing(String),
}

/// `manifest.json`, beside the folder `pkg`.
#[derive(Deserialize)]
struct Manifest {
    /// Path of the style sheet, `/pkg/….css`.
    style: Option<String>,
    /// Name of the islands' files: `/pkg/{name}.js` and `/pkg/{name}_bg.wasm`.
    islands: Option<String>,
}

/// The names in this build.
///
/// Without a manifest nothing has been built: pages then work without style and islands, and the log says so.
///
/// # Errors
/// When the manifest is malformed, or names what is not there.
pub fn load() -> Result<Assets, AssetsError> {
    let Some(file) = Site::get("manifest.json") else {
        tracing::warn!("no style sheet and no islands: this build has no manifest.json (cargo xtask site makes it)");
        return Ok(Assets::default());
    };
    let manifest: Manifest = serde_json::from_slice(&file.data)?;
    let islands = manifest
        .islands
        .iter()
        .flat_map(|name| [format!("/pkg/{name}.js"), format!("/pkg/{name}_bg.wasm")]);
    for path in manifest.style.iter().cloned().chain(islands) {
        if path.strip_prefix('/').and_then(Site::get).is_none() {
            return Err(AssetsError::Missing(path));
        }
    }
    Ok(Assets {
        style: manifest.style.unwrap_or_default(),
        islands: manifest.islands,
    })
}

/// `/pkg/*` and the icon.
pub fn routes() -> Router {
    Router::new()
        .route("/pkg/{*path}", get(file))
        .route("/favicon.svg", get(icon))
        // Browsers ask for it whatever the page says.
        .route("/favicon.ico", get(icon))
}

async fn icon() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
    ];
    (headers, ICON).into_response()
}

async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(kind) = is_plain(&path).then(|| content_type(&path)).flatten() else {
        return Problem::not_found().into_response();
    };
    let name = format!("pkg/{path}");
    let Some(original) = Site::get(&name) else {
        return Problem::not_found().into_response();
    };
    let compressed = [("br", ".br"), ("gzip", ".gz")]
        .into_iter()
        .filter(|(coding, _)| accepts(&headers, coding))
        .find_map(|(coding, suffix)| Some((coding, Site::get(&format!("{name}{suffix}"))?)));
    let (coding, found) = compressed.map_or((None, original), |(coding, found)| (Some(coding), found));

    let tag = format!("\"{}\"", HEXLOWER.encode(&found.metadata.sha256_hash()[..16]));
    let caching = if has_hash(&path) { FOR_EVER } else { "no-cache" };
    let mut answer = HeaderMap::new();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        answer.insert(header::ETAG, value);
    }
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, answer).into_response();
    }
    (answer, axum::body::Body::from(found.data.into_owned())).into_response()
}

/// Segments of letters, digits, `.`, `_` and `-` that do not begin with a dot: no way out of the folder.
fn is_plain(path: &str) -> bool {
    path.len() <= 200
        && path.split('/').all(|segment| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        })
}

/// The types a build has; anything else is not served.
fn content_type(path: &str) -> Option<&'static str> {
    match path.rsplit_once('.')?.1 {
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "wasm" => Some("application/wasm"),
        "svg" => Some("image/svg+xml; charset=utf-8"),
        _ => None,
    }
}

/// A part of the name is a hash: at least eight hexadecimal digits.
fn has_hash(path: &str) -> bool {
    path.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|part| part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The client takes this coding (RFC 9110, section 12.5.3); a weight of zero means that it does not.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let lines = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case(coding) && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    async fn status(path: &str) -> u16 {
        let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        routes().oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn f27_no_file_outside_the_folder_and_no_page_for_an_unknown_one() {
        for path in [
            "/pkg/../manifest.json",
            "/pkg/..%2fmanifest.json",
            "/pkg/%2e%2e/manifest.json",
            "/pkg/%2e%2e%2f%2e%2e%2fCargo.toml",
            "/pkg//etc/passwd",
            "/pkg/%2fetc%2fpasswd",
            "/pkg/..%5cmanifest.json",
            "/pkg/a%00.css",
            "/pkg/.hidden.css",
            "/pkg/nothing.css",
            "/pkg/main.css.br",
            "/pkg/main.rs",
            "/pkg/",
            "/pkg/%c0%ae%c0%ae/x.css",
        ] {
            assert!(matches!(status(path).await, 400 | 404), "{path}");
        }
        assert_eq!(status("/favicon.ico").await, 200);
    }

    #[test]
    fn only_names_with_a_hash_are_kept_for_ever() {
        for name in [
            "main-1f2e3d4c.css",
            "mayfly-0123456789abcdef_bg.wasm",
            "snippets/app-00ff00ff00/inline0.js",
        ] {
            assert!(has_hash(name), "{name}");
        }
        for name in ["main.css", "mayfly_bg.wasm", "feedback.js", "1f2e.css"] {
            assert!(!has_hash(name), "{name}");
        }
    }

    #[test]
    fn codings_with_weight_zero_are_not_taken() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
        assert!(accepts(&with("gzip, deflate, br;q=0.5"), "br"));
        assert!(accepts(&with("BR"), "br"));
        assert!(!accepts(&with("gzip, br;q=0"), "br"));
        assert!(!accepts(&with("gzip;q=x"), "gzip"));
        assert!(!accepts(&with("brotli"), "br"));
        assert!(!accepts(&HeaderMap::new(), "br"));
    }
}
