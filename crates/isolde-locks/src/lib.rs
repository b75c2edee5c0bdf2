//! isolde-locks
