//! The built files: islands, style sheet, icon. In release they are inside the binary; in debug they are read from
//! the folder that the build wrote.

use app::types::Assets;
use axum::Router;
use axum::extract::Path;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::RustEmbed;
use serde::Deserialize;

use super::error::Problem;

#[derive(RustEmbed)]
#[folder = "../target/site"]
#[allow_missing = true]
struct Site;

const FAVICON: &str = include_str!("favicon.svg");
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

#[derive(Deserialize)]
struct Manifest {
    style: String,
    islands: Option<String>,
}

/// Why the built files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// The manifest is not what the build writes.
    #[error("the manifest of the built files cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// Names of the built files. Without a build the pages go without style and islands, and the log says so.
///
/// # Errors
/// A manifest that cannot be read.
pub fn load() -> Result<Assets, AssetsError> {
    let Some(file) = Site::get("manifest.json") else {
        tracing::warn!("this build has no style sheet and no islands: build the site first (cargo xtask site)");
        return Ok(Assets::default());
    };
    let manifest: Manifest = serde_json::from_slice(&file.data)?;
    Ok(Assets { style: manifest.style, islands: manifest.islands })
}

/// `/pkg/*` and the icon.
pub fn routes() -> Router {
    Router::new().route("/pkg/{file}", get(file)).route("/favicon.ico", get(favicon)).route("/favicon.svg", get(favicon))
}

async fn favicon() -> Response {
    ([(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "public, max-age=86400")], FAVICON).into_response()
}

/// One file by its exact name; names carry a hash of the content, so it may be kept for ever.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let kind = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("wasm") => "application/wasm",
        _ => return Problem::not_found().into_response(),
    };
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let accepts = |coding: &str| {
        accepted.split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some(coding) && !words.any(|word| word == "q=0")
        })
    };
    for (coding, ending) in [("br", "br"), ("gzip", "gz")] {
        if accepts(coding)
            && let Some(file) = Site::get(&format!("pkg/{name}.{ending}"))
        {
            let headers =
                [(CONTENT_TYPE, kind), (CACHE_CONTROL, IMMUTABLE), (CONTENT_ENCODING, coding), (VARY, "accept-encoding")];
            return (StatusCode::OK, headers, file.data.into_owned()).into_response();
        }
    }
    match Site::get(&format!("pkg/{name}")) {
        Some(file) => {
            let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, IMMUTABLE), (VARY, "accept-encoding")];
            (StatusCode::OK, headers, file.data.into_owned()).into_response()
        }
        None => Problem::not_found().into_response(),
    }
}
