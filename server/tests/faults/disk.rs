//! A disk without any room left: a small file system of the test's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::clients::load;
use crate::kills::last_life;
use crate::place::{PASSWORD, Place, USERNAME, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, cannot_run, now};

/// A file system in memory, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None with the reason if this machine does not let us.
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m,mode=0700", "mayfly-test"])
            .arg(folder.path())
            .output()
            .map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(Self(folder))
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file");
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_without_room_on_the_disk_nothing_is_acknowledged_checks_go_on_and_it_recovers_by_itself() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() {
        println!("skipped: the disk of PostgreSQL is not ours");
        return;
    }
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            cannot_run(&format!("no small file system can be mounted here: {reason}"));
            return;
        }
    };
    let place = Place::sqlite(Some(disk.path()));
    let mut clients = place.people(60).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let first = serving.refresh(&clients[0].token).await.expect("an answer");
    clients[0].take(&first);
    let access = clients[0].access.clone();

    disk.fill();
    let (left, counts) = load(&serving, clients, 16, 2, 9).await;
    clients = left;
    disk.fill();
    println!("without room: {:?}", counts.answers);
    assert_eq!(counts.lost, 0, "{}", serving.log());
    assert!(
        counts.answers.get("503").is_some_and(|refused| *refused >= 60),
        "{counts:?}"
    );
    for answer in [
        serving.refresh(&clients[0].token).await.expect("an answer"),
        serving.sign_in(USERNAME, PASSWORD).await.expect("an answer"),
        serving.revoke(&clients[0].token).await.expect("an answer"),
    ] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
    }
    // A check asks nothing of the disk.
    for path in ["/api/v1/me/sessions", "/.well-known/jwks.json", "/readyz"] {
        let answer = serving.get(path, &access).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    std::fs::remove_file(disk.ballast()).expect("removed");
    let begun = now();
    while serving.sign_in(USERNAME, PASSWORD).await.expect("an answer").status != 200 {
        assert!(now() - begun < Duration::from_secs(5), "{}", serving.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("with room again: {} ms", (now() - begun).as_millis());
    let (left, counts) = load(&serving, clients, 16, 1, 0).await;
    clients = left;
    assert!(!counts.answers.contains_key("503"), "{counts:?}");
    // What was acknowledged without room is there after a kill, too.
    serving.kill();
    last_life(&place, &mut clients).await;
}
