//! What each call does, at every level and in both modes.

use isolde::{Cas, Db, Error, ErrorKind, Isolation, Mode, Result, Txn, prefix};

fn db() -> Db {
    Db::builder()
        .in_memory()
        .merge_operator("append", |old, new| Ok([old.unwrap_or_default(), new].concat()))
        .merge_operator("panic", |_, _| panic!("the operator's own"))
        .merge_operator("refuse", |_, _| Err("never".into()))
        .open()
        .unwrap()
}

/// Runs a test at every level and mode, and checks the database afterwards.
fn everywhere(test: impl Fn(&Db, &dyn Fn() -> Txn)) {
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            let db = db();
            test(&db, &|| db.txn().isolation(isolation).mode(mode).begin().unwrap());
            db.check().unwrap();
        }
    }
}

fn rows(txn: &Txn) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    txn.scan(..).map(|row| row.map(|(k, v)| (text(&k), text(&v)))).collect::<Result<_>>().unwrap()
}

#[test]
fn own_writes_are_read_by_every_call() {
    everywhere(|db, begin| {
        db.put("b", "old").unwrap();
        db.put("d", "gone").unwrap();
        let t = begin();
        t.put("a", "1").unwrap();
        t.put("b", "2").unwrap();
        t.delete("d").unwrap();
        t.increment("n", 5).unwrap();
        assert_eq!(t.get("b").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(t.get("d").unwrap(), None);
        assert_eq!(t.get("n").unwrap().as_deref(), Some(&5_i64.to_be_bytes()[..]));
        let five = String::from_utf8_lossy(&5_i64.to_be_bytes()).into_owned();
        let expected = [("a", "1"), ("b", "2"), ("n", five.as_str())];
        assert_eq!(rows(&t), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let backwards: Vec<_> = t.scan(..).keys().rev().collect::<Result<_>>().unwrap();
        assert_eq!(backwards, ["n", "b", "a"]);
        t.commit().unwrap();
        assert_eq!(db.get("b").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(db.get("d").unwrap(), None);
    });
}

#[test]
fn a_rolled_back_or_dropped_transaction_leaves_nothing() {
    everywhere(|db, begin| {
        db.put("k", "before").unwrap();
        let t = begin();
        t.put("k", "after").unwrap();
        t.insert("new", "x").unwrap();
        t.rollback();
        {
            let t = begin();
            t.delete("k").unwrap();
        }
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"before"[..]));
        assert_eq!(db.get("new").unwrap(), None);
    });
}

#[test]
fn savepoints_undo_writes_and_keep_earlier_ones() {
    everywhere(|db, begin| {
        db.put("k", "0").unwrap();
        let t = begin();
        t.put("k", "1").unwrap();
        let first = t.savepoint();
        t.put("k", "2").unwrap();
        t.put("l", "2").unwrap();
        let second = t.savepoint();
        t.delete("k").unwrap();
        t.rollback_to(second).unwrap();
        assert_eq!(t.get("k").unwrap().as_deref(), Some(&b"2"[..]));
        t.rollback_to(first).unwrap();
        assert_eq!(t.get("k").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(t.get("l").unwrap(), None);
        assert_eq!(t.rollback_to(second).unwrap_err().kind(), ErrorKind::SavepointGone);
        t.rollback_to(first).unwrap();
        t.commit().unwrap();
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(db.get("l").unwrap(), None);
    });
}

#[test]
fn insert_fails_on_a_present_key_and_the_transaction_lives_on() {
    everywhere(|db, begin| {
        db.put("k", "v").unwrap();
        let t = begin();
        assert_eq!(t.insert("k", "w").unwrap_err().kind(), ErrorKind::AlreadyExists);
        t.insert("l", "w").unwrap();
        assert_eq!(t.insert("l", "x").unwrap_err().kind(), ErrorKind::AlreadyExists);
        t.commit().unwrap();
        assert_eq!(db.get("l").unwrap().as_deref(), Some(&b"w"[..]));
    });
}

#[test]
fn compare_and_set_swaps_or_tells_the_current_value() {
    everywhere(|_, begin| {
        let t = begin();
        assert_eq!(t.compare_and_set("k", Some(b"x"), Some(b"y")).unwrap(), Cas::Current(None));
        assert_eq!(t.compare_and_set("k", None, Some(b"y")).unwrap(), Cas::Swapped);
        assert_eq!(t.compare_and_set("k", None, None).unwrap(), Cas::Current(Some("y".into())));
        assert_eq!(t.compare_and_set("k", Some(b"y"), None).unwrap(), Cas::Swapped);
        assert_eq!(t.fetch_update("k", |old| Some([old.unwrap_or(b"z"), b"!"].concat().into())).unwrap(), None);
        assert_eq!(t.get("k").unwrap().as_deref(), Some(&b"z!"[..]));
        t.commit().unwrap();
    });
}

#[test]
fn counters_and_merges_are_resolved_where_they_must() {
    everywhere(|db, begin| {
        db.put("text", "abc").unwrap();
        let t = begin();
        t.increment("n", 2).unwrap();
        t.increment("n", 3).unwrap();
        t.merge("append", "log", "a").unwrap();
        t.merge("append", "log", "b").unwrap();
        assert_eq!(t.merge("nobody", "log", "b").unwrap_err().kind(), ErrorKind::Merge);
        t.commit().unwrap();
        assert_eq!(db.get("n").unwrap().as_deref(), Some(&5_i64.to_be_bytes()[..]));
        assert_eq!(db.get("log").unwrap().as_deref(), Some(&b"ab"[..]));

        let t = begin();
        let outcome = t.increment("text", 1).and_then(|()| t.commit().map(|_| ()));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotACounter);
        let t = begin();
        let outcome = t.merge("refuse", "log", "b").and_then(|()| t.commit().map(|_| ()));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Merge);
    });
}

#[test]
fn scans_meet_in_the_middle_and_honour_their_bounds() {
    everywhere(|db, begin| {
        for i in 0..300 {
            db.put(format!("k{i:03}"), "v").unwrap();
        }
        let t = begin();
        t.put("k150x", "own").unwrap();
        let mut scan = t.scan("k010".."k290");
        let mut keys = Vec::new();
        let mut tail = Vec::new();
        while let Some(row) = scan.next() {
            keys.push(row.unwrap().0);
            if let Some(row) = scan.next_back() {
                tail.push(row.unwrap().0);
            }
        }
        tail.reverse();
        keys.extend(tail);
        let mut expected: Vec<String> = (10..290).map(|i| format!("k{i:03}")).collect();
        expected.push("k150x".into());
        expected.sort();
        assert_eq!(keys, expected);
        assert_eq!(t.scan("z".."a").count(), 0);
        assert_eq!(t.scan(prefix("k00")).count(), 10);
        assert_eq!(t.first(..).unwrap().unwrap().0, "k000");
        assert_eq!(t.last(.."k100").unwrap().unwrap().0, "k099");
        t.commit().unwrap();
    });
}

#[test]
fn ends_meet_whoever_comes_first_also_where_rows_are_read_ahead() {
    let db = db();
    for i in 0..200 {
        db.put(format!("k{i:03}"), "v").unwrap();
    }
    for first_forward in 0..130 {
        let t = db.snapshot().unwrap();
        let mut scan = t.scan("k010".."k190");
        let mut keys: Vec<_> = (0..first_forward).map(|_| scan.next().unwrap().unwrap().0).collect();
        let mut tail: Vec<_> = (0..20).map(|_| scan.next_back().unwrap().unwrap().0).collect();
        match first_forward % 2 {
            0 => keys.extend(scan.map(|row| row.unwrap().0)),
            _ => tail.extend(scan.rev().map(|row| row.unwrap().0)),
        }
        tail.reverse();
        keys.extend(tail);
        let expected: Vec<String> = (10..190).map(|i| format!("k{i:03}")).collect();
        assert_eq!(keys, expected, "{first_forward} from the front first");
    }
}

#[test]
fn an_iterator_that_outlives_its_transaction_says_so_once() {
    everywhere(|db, begin| {
        db.put("a", "1").unwrap();
        let t = begin();
        let mut scan = t.scan(..);
        t.rollback();
        assert_eq!(scan.next().unwrap().unwrap_err().kind(), ErrorKind::TransactionEnded);
        assert!(scan.next().is_none());
        drop(scan);
    });
}

#[test]
fn empty_keys_and_values_are_legal() {
    everywhere(|db, begin| {
        let t = begin();
        t.put("", "").unwrap();
        assert_eq!(t.get("").unwrap().as_deref(), Some(&b""[..]));
        t.commit().unwrap();
        assert_eq!(db.first(..).unwrap(), Some(("".into(), "".into())));
    });
}

#[test]
fn read_only_transactions_refuse_to_write_or_lock() {
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            let db = db();
            db.put("k", "v").unwrap();
            let t = db.txn().isolation(isolation).mode(mode).read_only().begin().unwrap();
            assert_eq!(t.get("k").unwrap().as_deref(), Some(&b"v"[..]));
            assert_eq!(t.put("k", "w").unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.delete("k").unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.increment("k", 1).unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.get_for_update("k").unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.lock(.., isolde::LockMode::Shared).unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.scan(..).for_update().next().unwrap().unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(t.scan(..).count(), 1);
            t.commit().unwrap();
            db.check().unwrap();
        }
    }
}

#[test]
fn a_body_is_run_again_after_a_conflict_and_gives_its_own_errors() {
    let db = db();
    db.put("n", 0_i64.to_be_bytes()).unwrap();
    let runs = std::cell::Cell::new(0);
    db.transact(|t| {
        let before = t.get("n")?;
        runs.set(runs.get() + 1);
        if runs.get() == 1 {
            db.put("n", 7_i64.to_be_bytes())?;
        }
        t.put("n", before.unwrap_or_default())
    })
    .unwrap();
    assert_eq!(runs.get(), 2);

    #[derive(Debug, PartialEq)]
    enum Bank {
        Insufficient,
        Db(ErrorKind),
    }
    impl From<Error> for Bank {
        fn from(error: Error) -> Self {
            Bank::Db(error.kind())
        }
    }
    let end = db.txn().run(|_| Err::<(), _>(Bank::Insufficient));
    assert_eq!(end, Err(Bank::Insufficient));
    let runs = std::cell::Cell::new(0);
    let end = db.txn().run(|t| {
        runs.set(runs.get() + 1);
        t.get("n")?;
        if runs.get() == 1 {
            db.increment("n", 1)?;
        }
        t.put("n", "x")?;
        t.get_for_update("n")?;
        Ok::<_, Bank>(())
    });
    assert_eq!((end, runs.get()), (Ok(()), 2), "a conflict behind a foreign error type is retried");
    db.check().unwrap();
}

#[test]
fn a_panic_in_a_body_rolls_back_and_the_database_goes_on() {
    everywhere(|db, begin| {
        let t = begin();
        let (isolation, mode) = (t.isolation(), t.mode());
        drop(t);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            db.txn().isolation(isolation).mode(mode).run(|t| -> Result<()> {
                t.put("k", "v")?;
                panic!("the body's own");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(db.get("k").unwrap(), None);
        db.put("k", "w").unwrap();
    });
}

#[test]
fn a_panic_in_a_merge_operator_rolls_back_and_frees_its_locks() {
    everywhere(|db, begin| {
        db.put("k", "v").unwrap();
        let t = begin();
        t.put("other", "w").unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            t.merge("panic", "k", "x").unwrap();
            t.commit()
        }));
        assert!(panicked.is_err());
        assert_eq!(db.get("other").unwrap(), None);
        db.put("k", "w").unwrap();
        assert_eq!(db.stats().active, 0);
    });
}

#[test]
fn calls_that_do_not_wait_fail_at_once_and_the_transaction_lives_on() {
    let db = db();
    let holder = db.txn().mode(Mode::Pessimistic).label("holder").begin().unwrap();
    holder.put("k", "x").unwrap();
    let t = db.txn().mode(Mode::Pessimistic).begin().unwrap();
    let busy = t.nowait().get("k").unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::LockBusy);
    assert!(!busy.is_retryable() && busy.to_string().contains("holder"), "{busy}");
    assert_eq!(t.nowait().multi_get(&["j", "k"]).unwrap_err().kind(), ErrorKind::LockBusy);
    assert_eq!(t.nowait().contains_key("k").unwrap_err().kind(), ErrorKind::LockBusy);
    assert!(!t.nowait().contains_key("j").unwrap());
    assert_eq!(t.scan(..).for_update().nowait().next().map(|row| row.unwrap_err().kind()), Some(ErrorKind::LockBusy));
    let late = t.timeout(std::time::Duration::from_millis(1)).put("k", "y").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::LockTimeout);
    t.put("l", "y").unwrap();
    drop(holder);
    t.put("k", "y").unwrap();
    t.commit().unwrap();
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"y"[..]));
    db.check().unwrap();
}

#[test]
fn untracked_reads_neither_lock_nor_conflict() {
    everywhere(|db, begin| {
        db.put("k", "old").unwrap();
        let t = begin();
        assert!(t.get_untracked("k").unwrap().is_some());
        db.put("k", "new").unwrap();
        t.put("l", "x").unwrap();
        t.commit().unwrap();
    });
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let db = db();
    db.put("text", "abc").unwrap();
    let batch = isolde::WriteBatch::new().put("a", "1").delete("b").increment("text", 1);
    assert_eq!(db.apply(&batch).unwrap_err().kind(), ErrorKind::NotACounter);
    assert_eq!(db.get("a").unwrap(), None);
    db.apply(&isolde::WriteBatch::new().put("a", "1").increment("n", 2)).unwrap();
    assert_eq!(db.get("n").unwrap().as_deref(), Some(&2_i64.to_be_bytes()[..]));
    db.check().unwrap();
}

#[test]
fn closing_ends_open_transactions_and_refuses_from_inside_a_body() {
    let db = db();
    let t = db.begin().unwrap();
    t.put("k", "v").unwrap();
    let refused = db.transact(|_| db.close());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    db.close().unwrap();
    assert_eq!(t.get("k").unwrap_err().kind(), ErrorKind::TransactionEnded);
    assert_eq!(t.commit().unwrap_err().kind(), ErrorKind::TransactionEnded);
    assert_eq!(db.begin().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.get("k").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_last_handle_may_go_while_transactions_are_open() {
    let db = db();
    db.put("k", "v").unwrap();
    let t = db.begin().unwrap();
    let scan = t.scan(..);
    drop(db);
    assert_eq!(t.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    t.put("k", "w").unwrap();
    t.commit().unwrap();
    drop(scan);
}

#[test]
fn limits_are_errors_that_name_their_option() {
    let db = Db::builder()
        .in_memory()
        .max_key_bytes(4)
        .max_value_bytes(8)
        .max_write_set_bytes(64)
        .max_locks_per_transaction(3)
        .open()
        .unwrap();
    for mode in Mode::ALL {
        let t = db.txn().mode(mode).begin().unwrap();
        t.put("kkkk", "vvvvvvvv").unwrap();
        let long_key = t.put("kkkkk", "v").unwrap_err();
        assert!(long_key.to_string().contains("max_key_bytes"), "{long_key}");
        assert_eq!(t.put("k", "vvvvvvvvv").unwrap_err().kind(), ErrorKind::TooLarge);
        t.commit().unwrap();
        let t = db.txn().mode(mode).begin().unwrap();
        let full = (0..100).find_map(|i| t.put(format!("{i}"), "vvvvvv").err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::TooLarge);
    }
    let t = db.txn().mode(Mode::Pessimistic).begin().unwrap();
    (0..3).for_each(|i| t.put(format!("l{i}"), "").unwrap());
    let too_many = t.put("l3", "").unwrap_err();
    assert!(too_many.to_string().contains("max_locks_per_transaction"), "{too_many}");
    t.commit().unwrap();
    db.check().unwrap();
}

/// Hands rows out of a scan of `span`, from the end that `from_back` says for each call, until it is at its end.
fn take_turns(mut scan: isolde::Scan, from_back: impl Fn(usize) -> bool, calls: usize) -> Vec<String> {
    let call = |number| if from_back(number) { scan.next_back() } else { scan.next() };
    (0..calls).map_while(call).map(|row| String::from_utf8_lossy(&row.unwrap().0).into_owned()).collect()
}

#[test]
fn a_limited_scan_gives_the_rows_that_take_gives() {
    everywhere(|db, begin| {
        db.txn().run(|t| (0..200).try_for_each(|i| t.put(format!("k{i:03}"), "old"))).unwrap();
        db.txn().run(|t| (0..200).filter(|i| i % 3 == 0).try_for_each(|i| t.delete(format!("k{i:03}")))).unwrap();
        for own_writes in [0, 20] {
            let t = begin();
            (40..40 + own_writes).for_each(|i| t.put(format!("k{i:03}"), "own").unwrap());
            (60..60 + own_writes).for_each(|i| t.delete(format!("k{i:03}")).unwrap());
            let all = rows(&t).len();
            for limit in [0, 1, 2, 23, 24, 25, 33, 70, 100, all - 1, all, all + 1, usize::MAX] {
                // From the front, from the back, and in turns.
                for every in [usize::MAX, 1, 2, 5] {
                    let from_back = |call: usize| every != usize::MAX && call.is_multiple_of(every);
                    let limited = take_turns(t.scan(..).limit(limit), from_back, 2 * all);
                    let wanted = take_turns(t.scan(..), from_back, limit.min(2 * all));
                    assert_eq!(limited, wanted, "{limit} rows, every {every}th from the back");
                }
                assert_eq!(t.scan(..).keys().limit(limit).count(), all.min(limit));
                assert_eq!(t.scan(..).for_update().limit(limit).count(), all.min(limit));
            }
            let mut scan = t.scan(..);
            let begun: Vec<_> = scan.by_ref().take(7).map(|row| row.unwrap()).collect();
            let rest: Vec<_> = scan.limit(30).map(|row| row.unwrap()).collect();
            let keys: Vec<_> = begun.iter().chain(&rest).map(|(key, _)| key.clone()).collect();
            let wanted: Vec<_> = t.scan(..).keys().take(37).collect::<Result<_>>().unwrap();
            assert_eq!(keys, wanted, "a limit counts from where it is set");
        }
    });
}

/// Nobody who writes behind the last row of a limited scan waits or conflicts, and who writes before it does.
#[test]
fn a_limited_scan_keeps_what_it_has_passed_and_nothing_behind() {
    for mode in Mode::ALL {
        let db = db();
        db.txn().run(|t| (0..200).try_for_each(|i| t.put(format!("k{i:03}"), "old"))).unwrap();
        db.delete("k001").unwrap();
        let begin = || db.txn().isolation(Isolation::Serializable).mode(mode).begin().unwrap();
        let write = |key: &str| {
            let t = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin().unwrap();
            t.nowait().put(key, "new").and_then(|()| t.commit().map(drop))
        };
        let t = begin();
        t.put("other", "x").unwrap();
        let keys: Vec<_> = t.scan(..).limit(4).keys().collect::<Result<_>>().unwrap();
        assert_eq!(keys, ["k000", "k002", "k003", "k004"]);
        write("k150").unwrap();
        write("k200").unwrap();
        match mode {
            Mode::Pessimistic => {
                for key in ["k000", "k001", "k002+", "k004"] {
                    assert_eq!(write(key).unwrap_err().kind(), ErrorKind::LockBusy, "{key}");
                }
                t.commit().unwrap();
            }
            Mode::Optimistic => {
                write("k004+").unwrap();
                t.commit().unwrap();
                let t = begin();
                t.put("other", "x").unwrap();
                assert_eq!(t.scan(..).limit(2).count(), 2);
                write("k001").unwrap();
                assert_eq!(t.commit().unwrap_err().kind(), ErrorKind::Conflict);
            }
        }
        // As far as so many keys at first, where there is nothing that is deleted.
        let t = begin();
        t.put("other", "y").unwrap();
        assert_eq!(t.scan("k005"..).limit(2).count(), 2);
        assert_eq!(t.scan(..="k180").limit(2).rev().count(), 2);
        write("k007").unwrap();
        write("k178").unwrap();
        t.commit().unwrap();
        db.check().unwrap();
    }
}

/// A limit locks little at first, and must not end in a lock for each few rows.
#[test]
fn a_long_limited_scan_takes_few_locks() {
    let db = Db::builder().in_memory().max_locks_per_transaction(12).open().unwrap();
    let rows = 5_000;
    (0..rows).for_each(|i| db.put(format!("k{i:05}"), "x").unwrap());
    for back in [false, true] {
        let t = db.txn().isolation(Isolation::Serializable).mode(Mode::Pessimistic).begin().unwrap();
        let scan = t.scan(..).limit(rows);
        let keys = scan.keys().map(|key| key.unwrap());
        assert_eq!(if back { keys.rev().count() } else { keys.count() }, rows);
        t.commit().unwrap();
    }
    db.check().unwrap();
}

#[test]
fn rows_that_are_skipped_do_not_count_for_a_limit() {
    let db = db();
    db.txn().run(|t| (0..6).try_for_each(|i| t.put(format!("job/{i}"), "x"))).unwrap();
    let begin = || db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin().unwrap();
    let (one, two) = (begin(), begin());
    let next = |t: &Txn| -> Vec<_> {
        t.scan(prefix("job/")).for_update().skip_locked().limit(2).keys().collect::<Result<_>>().unwrap()
    };
    assert_eq!(next(&one), ["job/0", "job/1"]);
    assert_eq!(next(&two), ["job/2", "job/3"]);
    one.commit().unwrap();
    assert_eq!(next(&two), ["job/0", "job/1"], "its own are locked for nobody but others");
    two.commit().unwrap();
}
