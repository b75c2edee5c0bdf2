//! Typed tables: the order of keys, ranges, and what happens to rows of other types.

use std::collections::BTreeMap;
use std::ops::Bound;

use isolde::{Bytes, Cas, Db, EncodeKey, ErrorKind, Isolation, Json, LockMode, Mode, Table, TableKey};
use isolde_tests::open;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

fn encoded(key: &(impl EncodeKey + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode_key(&mut bytes);
    bytes
}

/// Order, no prefixes, and back again.
fn obeys<K: TableKey + Ord + std::fmt::Debug>(a: &K, b: &K) -> Result<(), TestCaseError> {
    let (first, second) = (encoded(a), encoded(b));
    prop_assert_eq!(first.cmp(&second), a.cmp(b), "{:?} {:?}", a, b);
    prop_assert!(a == b || !second.starts_with(&first), "{:?} is the beginning of {:?}", a, b);
    let mut rest = &first[..];
    let back = K::decode_key(&mut rest);
    prop_assert_eq!(back.as_ref(), Some(a));
    prop_assert!(rest.is_empty());
    Ok(())
}

/// Bytes that make escapes likely.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..6)
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), any::<char>()], 0..5)
        .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn keys_are_ordered_as_their_values(
        ints in any::<([i8; 2], [i16; 2], [i32; 2], [i64; 2], [i128; 2])>(),
        numbers in any::<([u8; 2], [u16; 2], [u32; 2], [u64; 2], [u128; 2])>(),
        strings in [text(), text()],
        raw in [bytes(), bytes()],
        flags in any::<[(bool, Option<i8>); 2]>(),
        arrays in any::<[[u8; 3]; 2]>(),
    ) {
        obeys(&ints.0[0], &ints.0[1])?;
        obeys(&ints.1[0], &ints.1[1])?;
        obeys(&ints.2[0], &ints.2[1])?;
        obeys(&ints.3[0], &ints.3[1])?;
        obeys(&ints.4[0], &ints.4[1])?;
        obeys(&numbers.0[0], &numbers.0[1])?;
        obeys(&numbers.1[0], &numbers.1[1])?;
        obeys(&numbers.2[0], &numbers.2[1])?;
        obeys(&numbers.3[0], &numbers.3[1])?;
        obeys(&numbers.4[0], &numbers.4[1])?;
        obeys(&strings[0], &strings[1])?;
        obeys(&raw[0], &raw[1])?;
        obeys(&flags[0], &flags[1])?;
        obeys(&arrays[0], &arrays[1])?;
        let tuple = |i: usize| (strings[i].clone(), ints.0[i], raw[i].clone(), flags[i].0);
        obeys(&tuple(0), &tuple(1))?;
        let pair = |i: usize| (raw[i].clone(), strings[i].clone(), ints.0[i]);
        obeys(&pair(0), &pair(1))?;
        // A key of one transaction's type and what it borrows as are the same bytes.
        prop_assert_eq!(encoded(strings[0].as_str()), encoded(&strings[0]));
    }

    #[test]
    fn any_bytes_are_a_key_or_none(input in bytes()) {
        let mut rest = &input[..];
        if let Some(key) = <(Option<String>, Vec<u8>, bool)>::decode_key(&mut rest) {
            let taken = input.len() - rest.len();
            prop_assert_eq!(encoded(&key), &input[..taken], "decoding and encoding gives the same bytes");
        }
    }
}

type Row = ((i8, String), u32);
const MODEL: Table<(i8, String), u32> = Table::new("model");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ranges_are_those_of_a_sorted_map(
        rows in prop::collection::btree_map((-3_i8..3, "[a-c\0]{0,2}"), any::<u32>(), 0..20),
        from in (-3_i8..3, "[a-c\0]{0,2}"),
        to in (-3_i8..3, "[a-c\0]{0,2}"),
    ) {
        let db = open(|b| b);
        // Neighbours that must not be seen.
        db.table(Table::<(i8, String), u32>::new("mode")).put(&from, 1).unwrap();
        db.table(Table::<(i8, String), u32>::new("model\0")).put(&from, 1).unwrap();
        db.transact(|t| rows.iter().try_for_each(|(key, value)| t.table(MODEL).put(key, value))).unwrap();
        let t = db.begin().unwrap();
        let table = t.table(MODEL);
        let rows: BTreeMap<_, _> = rows;
        for start in [Bound::Included(from.clone()), Bound::Excluded(from.clone()), Bound::Unbounded] {
            for end in [Bound::Included(to.clone()), Bound::Excluded(to.clone()), Bound::Unbounded] {
                let inside = |key: &(i8, String)| {
                    let after = match &start { Bound::Included(k) => key >= k, Bound::Excluded(k) => key > k, _ => true };
                    let before = match &end { Bound::Included(k) => key <= k, Bound::Excluded(k) => key < k, _ => true };
                    after && before
                };
                let expected: Vec<Row> =
                    rows.iter().filter(|(key, _)| inside(key)).map(|(key, value)| (key.clone(), *value)).collect();
                let range = (start.clone(), end.clone());
                let found: Vec<Row> = table.scan(range.clone()).collect::<Result<_, _>>().unwrap();
                prop_assert_eq!(&found, &expected);
                let mut back: Vec<Row> = table.scan(range.clone()).rev().collect::<Result<_, _>>().unwrap();
                back.reverse();
                prop_assert_eq!(&back, &expected);
                prop_assert_eq!(table.first(range.clone()).unwrap(), expected.first().cloned());
                prop_assert_eq!(table.last(range).unwrap(), expected.last().cloned());
            }
        }
        let of_one: Vec<(i8, String)> = table.scan_prefix(&from.0).keys().collect::<Result<_, _>>().unwrap();
        let expected: Vec<(i8, String)> = rows.keys().filter(|key| key.0 == from.0).cloned().collect();
        prop_assert_eq!(of_one, expected);
    }
}

#[derive(Serialize, Deserialize, PartialEq, Clone, Debug)]
struct Account {
    owner: String,
    cents: i64,
}

const ACCOUNTS: Table<u64, Json<Account>> = Table::new("accounts");
const HITS: Table<String, i64> = Table::new("hits");

#[test]
fn operations_are_those_of_the_keys_behind_them() {
    let db = open(|b| b);
    let ada = Account { owner: "Ada".to_owned(), cents: 500 };
    let bob = Account { owner: "Bob".to_owned(), cents: 7 };
    db.table(ACCOUNTS).insert(&7, &ada).unwrap();
    assert_eq!(db.table(ACCOUNTS).insert(&7, &bob).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(db.table(ACCOUNTS).get(&7).unwrap(), Some(ada.clone()));
    let changed = db.table(ACCOUNTS).compare_and_set(&7, Some(&bob), None).unwrap();
    assert_eq!(changed, Cas::Current(Some(ada.clone())));
    assert_eq!(db.table(ACCOUNTS).compare_and_set(&8, None, Some(&bob)).unwrap(), Cas::Swapped);
    let before = db
        .table(ACCOUNTS)
        .fetch_update(&7, |account| account.map(|account| Account { cents: account.cents + 1, ..account.clone() }));
    assert_eq!(before.unwrap(), Some(ada.clone()));
    db.table(HITS).increment("front", 2).unwrap();
    db.transact(|t| {
        let (accounts, hits) = (t.table(ACCOUNTS), t.table(HITS));
        assert_eq!(accounts.get_for_update(&7)?.map(|account| account.cents), Some(501));
        assert_eq!(accounts.get_for_share(&8)?, Some(bob.clone()));
        accounts.delete(&8)?;
        assert!(!accounts.contains_key(&8)?, "own writes are seen");
        hits.increment("front", 3)
    })
    .unwrap();
    assert_eq!(db.table(HITS).get("front").unwrap(), Some(5));
    assert_eq!(db.table(ACCOUNTS).get(&8).unwrap(), None);
    // The same keys, without types.
    assert!(db.first(ACCOUNTS.span()).unwrap().is_some());
    db.check().unwrap();
}

#[test]
fn a_locked_range_keeps_out_its_keys_and_no_others() {
    let db = open(|b| b);
    let holder = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin().unwrap();
    holder.table(ACCOUNTS).lock(10..=20, LockMode::Shared).unwrap();
    let other = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin().unwrap();
    let put = |key: u64| {
        let account = Account { owner: "x".to_owned(), cents: 0 };
        other.table(ACCOUNTS).nowait().put(&key, &account).map_err(|error| error.kind())
    };
    assert_eq!(put(9), Ok(()));
    assert_eq!(put(21), Ok(()));
    for key in [10, 15, 20] {
        assert_eq!(put(key), Err(ErrorKind::LockBusy), "{key}");
    }
    other.commit().unwrap();
    holder.commit().unwrap();
    db.check().unwrap();
}

#[test]
fn rows_of_another_type_are_told_and_passed() {
    let db = open(|b| b);
    db.table(ACCOUNTS).put(&1, &Account { owner: "Ada".to_owned(), cents: 1 }).unwrap();
    db.table(Table::<u64, String>::new("accounts")).put(&2, "no JSON".to_owned()).unwrap();
    db.table(Table::<u8, Bytes>::new("accounts")).put(&3, Bytes::from_static(b"{}")).unwrap();
    let t = db.begin().unwrap();
    let kinds: Vec<Result<u64, ErrorKind>> =
        t.table(ACCOUNTS).scan(..).map(|row| row.map(|(key, _)| key).map_err(|error| error.kind())).collect();
    assert_eq!(kinds, [Ok(1), Err(ErrorKind::BadRow), Err(ErrorKind::BadRow)]);
    let error = t.table(ACCOUNTS).get(&2).unwrap_err();
    assert!(!error.is_retryable());
    let text = format!("{error:#}");
    for part in ["\"accounts\"", "cannot be decoded", "what to do"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(t.table(ACCOUNTS).get(&1).unwrap().is_some(), "the transaction lives on");
}

#[test]
fn keys_are_redacted_in_bad_rows_too() {
    let db: Db = open(|b| b.redact_keys(true));
    const SECRETS: Table<String, i64> = Table::new("secrets");
    db.put(SECRETS.span().start, "").unwrap();
    db.table(Table::<String, String>::new("secrets")).put("password", "short".to_owned()).unwrap();
    let text = format!("{:#}", db.table(SECRETS).get("password").unwrap_err());
    assert!(!text.contains("password") && text.contains('#'), "{text}");
    let text = format!("{:#}", db.begin().unwrap().table(SECRETS).first(..).unwrap_err());
    assert!(text.contains("no key of its type"), "{text}");
}
