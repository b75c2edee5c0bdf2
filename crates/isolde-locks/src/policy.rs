//! What is done about deadlocks.

/// What is done about transactions that wait for each other in a circle.
///
/// Whether somebody can lose for ever: under `Detect` with the youngest as victim, under `WoundWait`
/// and under `WaitDie` a retry that keeps its age is in time the oldest and wins. Under `Detect` with
/// the oldest as victim it must take a new age. The other policies give no such bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadlocks {
    /// Search for a cycle when a request blocks, and make one transaction in it give way.
    Detect {
        /// Which one.
        victim: Victim,
    },
    /// An older transaction that would wait for a younger one rolls it back ("wounds" it).
    WoundWait,
    /// A younger transaction that would wait for an older one gives way ("dies").
    WaitDie,
    /// Nobody waits: a request that would block fails at once.
    NoWait,
    /// Nothing: a deadlock lasts until somebody's wait is cancelled.
    TimeoutOnly,
}

/// Which transaction of a cycle gives way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    /// The one that began last: the least work is lost, and a retry that keeps its age wins in time.
    Youngest,
    /// The one that began first.
    Oldest,
    /// The one that holds the fewest locks; among equals the youngest.
    FewestLocks,
    /// The one whose request closed the cycle.
    Requester,
}

/// Whether a request that cannot be granted waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitPolicy {
    /// It waits in the queue.
    Wait,
    /// It fails at once.
    NoWait,
}

/// Options of a lock manager.
#[derive(Clone, Debug)]
pub struct LockConfig {
    /// What is done about deadlocks.
    pub deadlocks: Deadlocks,
    /// How many locks one transaction may hold.
    pub max_locks_per_txn: usize,
}
