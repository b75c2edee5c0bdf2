//! isolde-mvcc
