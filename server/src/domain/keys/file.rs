//! The file that holds the key-encryption key: read strictly, made on the first run.
//!
//! Must never print what the file holds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::{KeyEncryptionKey, KeyError};
use crate::domain::random::{Random, secret};

/// A key is 43 characters and a line end; more than this is some other file.
const LARGEST_FILE: u64 = 128;

/// Why the key file cannot be used: one sentence, without its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not there, and not to be made.
    #[error("the key file {} is missing; without it nothing in the database can be opened", .0.display())]
    Missing(PathBuf),
    /// A directory, a symbolic link, a device.
    #[error("the key file {} is not a regular file; symbolic links and directories are refused", .0.display())]
    NotAFile(PathBuf),
    /// Others than its owner may read or write it.
    #[error("the key file {} may be read by others (mode {mode:03o}); run: chmod 600 {}", .path.display(), .path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Shorter, longer or other than 32 bytes in base64, or not random.
    #[error("the key file {} holds no usable key: {cause}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        cause: KeyError,
    },
    /// The operating system refused.
    #[error("the key file {} cannot be {doing}: {cause}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// "read" or "made".
        doing: &'static str,
        /// The refusal.
        cause: io::Error,
    },
}

/// Reads the key-encryption key from a file (base64url of 32 bytes, mode 0600). With `create`, a missing
/// file is made with fresh random bytes, and its folder with mode 0700.
///
/// # Errors
/// One clear sentence for a missing (without `create`), short, corrupt or wider-readable file, for a
/// directory or symbolic link, and for whatever the operating system refuses.
pub fn load_or_create_key_file(
    path: &Path,
    create: bool,
    random: &dyn Random,
) -> Result<KeyEncryptionKey, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Missing(_)) if create => match make(path, random) {
            Ok(()) => load(path),
            // Another process was quicker; its key counts.
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => load(path),
            Err(cause) => Err(KeyFileError::Io {
                path: path.to_owned(),
                doing: "made",
                cause,
            }),
        },
        loaded => loaded,
    }
}

fn load(path: &Path) -> Result<KeyEncryptionKey, KeyFileError> {
    let failed = |cause: io::Error| match cause.kind() {
        ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => KeyFileError::Io {
            path: path.to_owned(),
            doing: "read",
            cause,
        },
    };
    let named = fs::symlink_metadata(path).map_err(failed)?;
    if !named.is_file() {
        return Err(KeyFileError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
    // Somebody who swaps the file for a link between the two calls opens another one.
    if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
        return Err(KeyFileError::NotAFile(path.to_owned()));
    }
    let mode = opened.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(256));
    file.take(LARGEST_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    let unusable = |cause| KeyFileError::Unusable {
        path: path.to_owned(),
        cause,
    };
    let text = std::str::from_utf8(&content).map_err(|_| unusable(KeyError::Malformed))?;
    KeyEncryptionKey::from_base64(text.trim_ascii_end()).map_err(unusable)
}

fn make(path: &Path, random: &dyn Random) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut line = Zeroizing::new(BASE64URL_NOPAD.encode(secret::<32>(random).as_slice()));
    line.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // On disk before anything is sealed with it: a key lost in a power cut would take all of that with it.
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    if let Err(cause) = written {
        // Half a key would only be refused at the next start.
        fs::remove_file(path)?;
        return Err(cause);
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::domain::random::SystemRandom;

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> KeyFileError {
        load_or_create_key_file(path, false, &SystemRandom::default()).unwrap_err()
    }

    #[test]
    fn m10_a_missing_file_is_made_once_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("key");
        let random = SystemRandom::default();
        let made = load_or_create_key_file(&path, true, &random).unwrap();
        let read = load_or_create_key_file(&path, true, &random).unwrap();
        assert_eq!(made.derive("x"), read.derive("x"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn j10_a_key_file_others_can_read_or_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        load_or_create_key_file(&path, true, &SystemRandom::default()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(refusal(&path), KeyFileError::TooOpen { .. }), "mode {mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load_or_create_key_file(&path, false, &SystemRandom::default()).is_ok());
    }

    #[test]
    fn m10_a_missing_short_corrupt_or_strange_file_is_refused_without_showing_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(refusal(&path), KeyFileError::Missing(_)));
        let good = BASE64URL_NOPAD.encode(secret::<32>(&SystemRandom::default()).as_slice());
        let contents: [&[u8]; 7] = [
            b"",
            &good.as_bytes()[..42],
            format!("{good}A").as_bytes(),
            format!("{good}\n{good}").as_bytes(),
            b"\xff\xfe\x00",
            "A".repeat(43).as_bytes(),
            "A".repeat(100_000).as_bytes(),
        ]
        .map(|content| content.to_vec().leak() as &[u8]);
        for content in contents {
            write(&path, content, 0o600);
            let refusal = refusal(&path);
            assert!(matches!(refusal, KeyFileError::Unusable { .. }), "{content:?}");
            assert!(!format!("{refusal} {refusal:?}").contains(&good[..8]));
        }
        let link = folder.path().join("link");
        write(&path, good.as_bytes(), 0o600);
        symlink(&path, &link).unwrap();
        assert!(matches!(refusal(&link), KeyFileError::NotAFile(_)));
        assert!(matches!(refusal(folder.path()), KeyFileError::NotAFile(_)));
    }

    #[test]
    fn m10_an_existing_bad_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"short", 0o600);
        assert!(load_or_create_key_file(&path, true, &SystemRandom::default()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
