//! A database or a key that is not the one it should be: the program says so in one sentence and does not start.

use crate::app::TestApp;

/// What the program says when it is to serve with these settings and refuses: one sentence.
pub async fn refused_start(app: &TestApp, changes: &[(&str, &str)]) -> String {
    // What opens the same and ends by itself goes first: a server that did start would not end.
    assert!(!app.command(&["keys", "list"], changes).await.status.success());
    let output = app.command(&["serve"], changes).await;
    assert!(!output.status.success());
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[tokio::test]
async fn f9_a_file_that_is_no_database_refuses_the_start_in_one_sentence_and_is_left_alone() {
    let app = TestApp::start_without_key("f9 no database").await;
    let file = app.folder().join("other.db");
    let address = format!("sqlite:{}", file.display());
    // The first run, on whichever database: the folder has its secrets.
    assert!(app.command(&["keys", "list"], &[]).await.status.success());
    let header = [b"SQLite format 3\0".as_slice(), &[0xa5; 8176]].concat();
    let noise: Vec<u8> = (0..8_u8).flat_map(|n| server::services::sha256(&[n; 100])).collect();
    for (what, content) in [
        ("noise", noise.repeat(32)),
        ("a text", b"username,password\nmax,hunter2\n".repeat(20)),
        ("a header and noise", header),
    ] {
        std::fs::write(&file, &content).expect("written");
        let said = refused_start(&app, &[("DATABASE__URL", &address)]).await;
        println!("{what}: {said}");
        assert!(said.contains("database"), "{what}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(std::fs::read(&file).expect("there"), content, "{what} is left as it is");
    }
}

#[tokio::test]
async fn f9_the_database_of_another_installation_refuses_the_start_in_one_sentence() {
    let app = TestApp::start_without_key("f9 ours").await;
    let other = TestApp::start_without_key("f9 theirs").await;
    for one in [&app, &other] {
        assert!(one.command(&["keys", "list"], &[]).await.status.success());
    }
    let said = refused_start(&app, &[("DATABASE__URL", &other.database_url())]).await;
    println!("{said}");
    assert!(said.contains("another key-encryption key"), "{said}");
    for one in [&app, &other] {
        let key = std::fs::read_to_string(one.folder().join("secrets/key-encryption-key")).expect("made");
        for part in [&key[..6], &key[20..26]] {
            assert!(!said.contains(part), "{said}");
        }
        assert!(one.command(&["keys", "list"], &[]).await.status.success(), "unharmed");
    }
}

/// F12. Sealed by whoever has the key-encryption key, and still no key of ours. A key file on a slow disk (NFS) is not
/// tested: it is read once, before anything listens, so a slow one only makes the start slow; nobody is served meanwhile.
#[tokio::test]
async fn f12_a_signing_key_of_the_wrong_curve_refuses_the_start_in_one_sentence() {
    for (what, pkcs8) in [
        ("P-384", crate::service::pkcs8_p384()),
        ("Ed25519", crate::service::pkcs8_ed25519()),
    ] {
        let app = TestApp::start(&format!("f12 {what}")).await;
        let id = app.rows("SELECT id FROM keys WHERE purpose = 'signing'").await[0][0]
            .clone()
            .expect("an id");
        let random = crate::app::SeededRandom::new(what);
        let sealed = crate::app::key_encryption_key().seal("key", id.as_bytes(), &pkcs8, &random);
        let sealed = data_encoding::HEXLOWER.encode(&sealed);
        let postgres = app.backend().store().is_postgres();
        let bytes = if postgres {
            format!("'\\x{sealed}'::bytea")
        } else {
            format!("x'{sealed}'")
        };
        app.execute(&format!("UPDATE keys SET private_sealed = {bytes} WHERE id = '{id}'"))
            .await;
        let said = refused_start(&app, &[]).await;
        println!("{what}: {said}");
        assert!(
            said.contains(&format!("the stored key {id} contradicts itself")),
            "{what}: {said}"
        );
    }
}

#[tokio::test]
async fn f9_an_empty_database_in_the_place_of_one_that_was_used_refuses_the_start() {
    let app = TestApp::start("f9 empty").await;
    let checkpoint = server::startup::checkpoint_path(&app.settings(&[]));
    app.add_person("max", &["member"], false).await;
    app.backend().seal_audit(&checkpoint).await.expect("sealed");
    let file = app.folder().join("other.db");
    std::fs::write(&file, "").expect("written");
    let address = format!("sqlite:{}", file.display());
    let said = refused_start(&app, &[("DATABASE__URL", &address)]).await;
    assert!(said.contains("the database is empty"), "{said}");
    assert!(app.command(&["keys", "list"], &[]).await.status.success(), "unharmed");
}
