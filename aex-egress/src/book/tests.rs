use super::*;

const NOW: u64 = 1_000_000;
const EXPIRES: u64 = NOW + TICKET_LIFE_MS;

fn id(n: u8) -> HoldId {
    HoldId::from([n; 16])
}

fn book() -> Book<()> {
    Book::new(Limits::default())
}

fn ended(bytes_down: u64) -> Exchange {
    Exchange {
        sent: true,
        status: Some(200),
        bytes_down,
        complete: true,
        ..Exchange::default()
    }
}

fn redeem(book: &mut Book<()>, n: u8) {
    book.may_redeem(id(n)).unwrap();
    book.redeemed(id(n), EXPIRES, ());
}

/// Voids as the register does, with a journal that always works.
fn void(book: &mut Book<()>, n: u8) {
    if let Some(Record::Dead { id, until_boot_ms }) = book.void(id(n), NOW) {
        book.died(id, until_boot_ms);
    }
}

fn sent(book: &mut Book<()>) -> Vec<(HoldId, Ending)> {
    let batch = book.take_batch();
    batch.into_iter().map(|r| (r.id, r.ending)).collect()
}

#[test]
fn a_ticket_is_redeemed_once_through_every_stage_of_its_life() {
    let mut book = book();
    redeem(&mut book, 1);
    assert_eq!(book.may_redeem(id(1)), Err(NotRedeemed::Used), "open");
    assert!(book.end(id(1), ended(5)).is_some());
    assert_eq!(book.may_redeem(id(1)), Err(NotRedeemed::Used), "ended");
    let batch = book.take_batch();
    book.acknowledged(&batch, NOW);
    assert_eq!(
        book.may_redeem(id(1)),
        Err(NotRedeemed::Used),
        "acknowledged"
    );
    book.sweep(EXPIRES);
    assert_eq!(
        book.may_redeem(id(1)),
        Err(NotRedeemed::Used),
        "until expiry"
    );
    book.sweep(EXPIRES.max(NOW + SETTLED_FOR_MS) + 1001);
    assert_eq!(book.records().count(), 0);
}

#[test]
fn an_exchange_ends_once() {
    let mut book = book();
    redeem(&mut book, 1);
    assert!(book.end(id(1), ended(5)).is_some());
    assert!(book.end(id(1), ended(6)).is_none());
    assert_eq!(sent(&mut book), [(id(1), Ending::Ended(ended(5)))]);
}

#[test]
fn a_void_before_redemption_is_final() {
    let mut book = book();
    void(&mut book, 1);
    assert_eq!(book.may_redeem(id(1)), Err(NotRedeemed::Dead));
    void(&mut book, 1);
    assert_eq!(
        sent(&mut book),
        [(id(1), Ending::Unknown), (id(1), Ending::Unknown)]
    );
    book.sweep(NOW + DEAD_FOR_MS);
    assert_eq!(book.may_redeem(id(1)), Err(NotRedeemed::Dead));
}

#[test]
fn a_void_after_redemption_gets_the_truth_when_there_is_one() {
    let mut book = book();
    redeem(&mut book, 1);
    void(&mut book, 1);
    assert_eq!(sent(&mut book), [], "still open: its ending follows");
    let _ = book.end(id(1), ended(7));
    void(&mut book, 1);
    let truth = (id(1), Ending::Ended(ended(7)));
    let batch = book.take_batch();
    let said: Vec<_> = batch.iter().map(|r| (r.id, r.ending.clone())).collect();
    assert_eq!(said, [truth.clone(), truth]);
    book.acknowledged(&batch, NOW);
    void(&mut book, 1);
    assert_eq!(
        sent(&mut book),
        [],
        "acknowledged while the question was on its way"
    );
}

#[test]
fn a_long_exchange_is_not_voided_by_a_question_that_crossed_its_receipt() {
    let mut book = book();
    redeem(&mut book, 1);
    let late = EXPIRES + 600_000;
    let _ = book.end(id(1), ended(7));
    let batch = book.take_batch();
    book.acknowledged(&batch, late);
    book.sweep(late + SETTLED_FOR_MS);
    assert!(book.knows(id(1)));
    assert_eq!(book.void(id(1), late), None);
    assert_eq!(sent(&mut book), []);
    book.sweep(late + SETTLED_FOR_MS + 1001);
    assert!(!book.knows(id(1)));
}

#[test]
fn receipts_stay_owed_until_they_are_acknowledged() {
    let mut book = book();
    redeem(&mut book, 1);
    redeem(&mut book, 2);
    book.opened(id(1), 5);
    let _ = book.end(id(1), ended(1));
    let first = book.take_batch();
    let _ = book.end(id(2), ended(2));
    book.give_back(first);
    let all: Vec<HoldId> = sent(&mut book).into_iter().map(|(id, _)| id).collect();
    assert_eq!(all, [id(1), id(1), id(2)]);
}

#[test]
fn batches_are_bounded() {
    let mut book = book();
    for n in 0..=u16::MAX / 64 {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        book.redeemed(bytes.into(), EXPIRES, ());
        let _ = book.end(bytes.into(), ended(0));
    }
    assert_eq!(book.take_batch().len(), MAX_RECEIPTS);
    assert_eq!(book.take_batch().len(), MAX_RECEIPTS);
    assert_eq!(book.take_batch().len(), 0);
}

#[test]
fn a_restart_knows_what_the_records_say() {
    let mut before = book();
    for n in 1..=4 {
        redeem(&mut before, n);
    }
    let _ = before.end(id(1), ended(1));
    let batch = before.take_batch();
    before.acknowledged(&batch, NOW);
    let _ = before.end(id(2), ended(2));
    void(&mut before, 9);
    let records = before.records().collect();
    let mut after: Book<()> = Book::restored(Limits::default(), records, NOW + 5);
    for n in 1..=4 {
        assert_eq!(after.may_redeem(id(n)), Err(NotRedeemed::Used), "{n}");
    }
    assert_eq!(after.may_redeem(id(9)), Err(NotRedeemed::Dead));
    let gone = Ending::Ended(Exchange {
        sent: true,
        failure: Some(Failure::EgressGone),
        head_boot_ms: NOW + 5,
        ..Exchange::default()
    });
    let mut owed = sent(&mut after);
    owed.sort_by_key(|(id, _)| *id);
    assert_eq!(
        owed,
        [
            (id(2), Ending::Ended(ended(2))),
            (id(3), gone.clone()),
            (id(4), gone)
        ]
    );
}

#[test]
fn at_its_limits_it_refuses_and_never_forgets() {
    let limits = Limits {
        live: 2,
        used: 100,
        dead: 1,
        waiting: 10,
    };
    let mut book: Book<()> = Book::new(limits);
    redeem(&mut book, 1);
    redeem(&mut book, 2);
    assert_eq!(book.may_redeem(id(3)), Err(NotRedeemed::Full));
    void(&mut book, 4);
    void(&mut book, 5);
    // What cannot be remembered as dead is not answered at all: the question comes again.
    assert_eq!(sent(&mut book), [(id(4), Ending::Unknown)]);
    let _ = book.end(id(1), ended(0));
    assert_eq!(
        book.may_redeem(id(3)),
        Err(NotRedeemed::Full),
        "not acknowledged"
    );
    let batch = book.take_batch();
    book.acknowledged(&batch, NOW);
    assert_eq!(book.may_redeem(id(3)), Ok(()));
}
