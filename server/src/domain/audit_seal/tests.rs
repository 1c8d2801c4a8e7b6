//! Every way to tamper with the log is found, and the first bad row is named (F70).

use super::*;

fn row(n: i64) -> AuditRow {
    AuditRow {
        id: EventId(uuid::Uuid::from_u128(n.unsigned_abs().into())),
        at: Timestamp::from_millis(n),
        kind: "signed_in".into(),
        outcome: "success".into(),
        actor_id: None,
        subject_id: None,
        session_id: None,
        device_id: None,
        address: Some("198.51.100.7".into()),
        user_agent: None,
        request_id: None,
        reason: None,
        facts: "{}".into(),
        changes: "{}".into(),
    }
}

fn key() -> SealKey {
    SealKey::new(&[7; 32])
}

/// Five links made in two goes, and the checkpoint after them.
fn chain() -> (Vec<SealedRow>, Checkpoint) {
    let key = key();
    let rows: Vec<AuditRow> = (1..=5).map(row).collect();
    let mut seals = key.seal(None, &rows[..2], Timestamp::from_millis(10));
    seals.extend(key.seal(seals.last(), &rows[2..], Timestamp::from_millis(20)));
    let checkpoint = key.checkpoint(&seals[4], Timestamp::from_millis(30));
    (
        seals
            .into_iter()
            .zip(rows)
            .map(|(seal, row)| SealedRow { seal, row: Some(row) })
            .collect(),
        checkpoint,
    )
}

fn verify(links: &[SealedRow], checkpoint: &Checkpoint) -> Result<(), Tampering> {
    let key = key();
    let mut walk = Walk::begin(&key, Some(checkpoint.clone()))?;
    walk.check(links)?;
    walk.finish(None)
}

#[test]
fn f70_an_untouched_log_is_whole_also_when_read_in_parts() {
    let (links, checkpoint) = chain();
    assert_eq!(verify(&links, &checkpoint), Ok(()));
    let key = key();
    let mut walk = Walk::begin(&key, Some(checkpoint)).expect("the checkpoint is ours");
    for part in links.chunks(2) {
        walk.check(part).expect("whole");
    }
    assert_eq!(walk.position(), 5);
    assert_eq!(walk.finish(None), Ok(()));
}

#[test]
fn f70_an_altered_row_is_named_whichever_column_it_was() {
    let alterations: [fn(&mut AuditRow); 14] = [
        |row| row.id = EventId(uuid::Uuid::from_u128(99)),
        |row| row.at = Timestamp::from_millis(99),
        |row| row.kind.push('x'),
        |row| row.outcome = "denied".into(),
        |row| row.actor_id = Some(UserId(uuid::Uuid::nil())),
        |row| row.subject_id = Some(UserId(uuid::Uuid::nil())),
        |row| row.session_id = Some(SessionId(uuid::Uuid::nil())),
        |row| row.device_id = Some(DeviceId(uuid::Uuid::nil())),
        |row| row.address = None,
        |row| row.user_agent = Some(String::new()),
        |row| row.request_id = Some("r".into()),
        |row| row.reason = Some("x".into()),
        |row| row.facts = "{ }".into(),
        |row| row.changes = "{ }".into(),
    ];
    for alter in alterations {
        let (mut links, checkpoint) = chain();
        let row = links[2].row.as_mut().expect("there");
        alter(row);
        let event = row.id;
        assert_eq!(verify(&links, &checkpoint), Err(Tampering::Modified { seq: 3, event }));
    }
}

#[test]
fn f70_the_time_of_a_seal_is_sealed_too() {
    let (mut links, checkpoint) = chain();
    links[1].seal.sealed_at = Timestamp::from_millis(11);
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::Modified {
            seq: 2,
            event: row(2).id
        })
    );
}

#[test]
fn f70_a_deleted_event_and_a_deleted_seal_are_named() {
    let (mut links, checkpoint) = chain();
    links[3].row = None;
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::EventMissing {
            seq: 4,
            event: row(4).id
        })
    );
    let (mut links, checkpoint) = chain();
    links.remove(1);
    assert_eq!(verify(&links, &checkpoint), Err(Tampering::SealMissing { seq: 2 }));
    let (mut links, checkpoint) = chain();
    links.remove(0);
    assert_eq!(verify(&links, &checkpoint), Err(Tampering::SealMissing { seq: 1 }));
}

#[test]
fn f70_swapped_rows_are_named_whether_or_not_their_seals_move_with_them() {
    let (mut links, checkpoint) = chain();
    let (a, b) = (links[1].row.clone(), links[3].row.clone());
    (links[1].row, links[3].row) = (b, a);
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::Reordered {
            seq: 2,
            event: row(4).id
        })
    );

    let (mut links, checkpoint) = chain();
    links.swap(1, 2);
    (links[1].seal.seq, links[2].seal.seq) = (2, 3);
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::Reordered {
            seq: 2,
            event: row(3).id
        })
    );
}

#[test]
fn f70_an_event_put_in_without_a_seal_is_named() {
    let (links, checkpoint) = chain();
    let key = key();
    let mut walk = Walk::begin(&key, Some(checkpoint)).expect("the checkpoint is ours");
    walk.check(&links).expect("whole");
    assert_eq!(
        walk.finish(Some(row(9).id)),
        Err(Tampering::Unsealed { event: row(9).id })
    );
}

#[test]
fn f70_a_cut_tail_is_caught_by_the_checkpoint() {
    let (mut links, checkpoint) = chain();
    links.truncate(3);
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::Truncated { found: 3, expected: 5 })
    );
    assert_eq!(
        verify(&[], &checkpoint),
        Err(Tampering::Truncated { found: 0, expected: 5 })
    );
}

#[test]
fn f70_a_log_replaced_by_another_good_one_is_caught_by_the_checkpoint() {
    let (_, checkpoint) = chain();
    let rows: Vec<AuditRow> = (1..=6).map(|n| row(n * 100)).collect();
    let seals = key().seal(None, &rows, Timestamp::from_millis(10));
    let links: Vec<SealedRow> = seals
        .into_iter()
        .zip(rows)
        .map(|(seal, row)| SealedRow { seal, row: Some(row) })
        .collect();
    assert_eq!(verify(&links, &checkpoint), Err(Tampering::Replaced { seq: 5 }));
}

#[test]
fn f70_without_the_key_nothing_can_be_sealed_anew() {
    let (_, checkpoint) = chain();
    let rows: Vec<AuditRow> = (1..=5).map(row).collect();
    let seals = SealKey::new(&[8; 32]).seal(None, &rows, Timestamp::from_millis(10));
    let links: Vec<SealedRow> = seals
        .into_iter()
        .zip(rows)
        .map(|(seal, row)| SealedRow { seal, row: Some(row) })
        .collect();
    assert_eq!(
        verify(&links, &checkpoint),
        Err(Tampering::Modified {
            seq: 1,
            event: row(1).id
        })
    );
}

#[test]
fn a_checkpoint_survives_as_text_and_not_if_altered() {
    let (links, checkpoint) = chain();
    let read: Checkpoint = checkpoint.to_string().parse().expect("its own text");
    assert_eq!(read, checkpoint);
    assert_eq!(
        verify(&links, &Checkpoint { seq: 4, ..read.clone() }),
        Err(Tampering::CheckpointForged)
    );
    assert_eq!(
        verify(&links, &Checkpoint { hash: [0; 32], ..read }),
        Err(Tampering::CheckpointForged)
    );
    assert_eq!("mayfly-audit-1 5".parse::<Checkpoint>(), Err(NotACheckpoint));
}
