//! Other databases under the suite, each behind a cargo feature that is off by default.
//!
//! ```text
//!  schedule driver ──► Database = Traced<S> ──► S: Sessions ──► the database's own client
//!                          │  history, version order              │ values, and the marks of their writers
//!                          ▼                                      ▼
//!                       checker                         done, failed, or known to be blocked
//! ```
//!
//! A database seen from outside reports values, not versions. So every write leaves a *mark* beside its
//! value, its transaction and its number there, and where one statement can both read and write, the row
//! keeps the whole *trail* of marks, oldest first: a list that is appended to, from which the order of
//! the versions can be read (as Elle does). A read then names the version that it saw, and the same
//! checker judges that judges Isolde; nothing is guessed from values.
//!
//! To add a database, implement [`Engine`] (its levels, in its own words, and what each promises) and
//! [`Sessions`]; [`Traced`] does the rest.

#[cfg(any(feature = "redb", feature = "fjall", feature = "surrealmx"))]
mod embedded;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod nodes;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redb")]
mod redb;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod remote;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "surrealmx")]
mod surrealmx;

mod concurrent;
mod mark;
#[cfg(any(feature = "postgres", feature = "mysql", test))]
mod records;
mod traced;

pub use concurrent::{Concurrent, Observed, TRANSACTIONS};
pub use mark::{Mark, Stored};
pub use traced::{Answer, Progress, Sessions, Traced};

use crate::engine::Engine;

/// Why there is no such database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoAdapter {
    /// This build has been made without it.
    NotBuilt {
        /// The cargo feature that has it.
        feature: &'static str,
    },
    /// The address is none.
    Address(String),
    /// No such database is known.
    Unknown,
}

/// What `--db` may name: the word or the beginning of the address, and the feature that has it.
const NAMES: [(&str, &str); 6] = [
    ("sqlite", "sqlite"),
    ("postgres://", "postgres"),
    ("mysql://", "mysql"),
    ("redb", "redb"),
    ("fjall", "fjall"),
    ("surrealmx", "surrealmx"),
];

/// The database of this name or address.
///
/// # Errors
/// When there is none, or this build has been made without it.
pub fn engine(name: &str) -> Result<Box<dyn Engine>, NoAdapter> {
    match name {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Box::new(sqlite::Sqlite)),
        #[cfg(feature = "redb")]
        "redb" => Ok(Box::new(redb::RedbEngine)),
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Box::new(fjall::Fjall)),
        #[cfg(feature = "surrealmx")]
        "surrealmx" => Ok(Box::new(surrealmx::SurrealMx)),
        #[cfg(feature = "postgres")]
        address if address.starts_with("postgres://") => {
            let engine = postgres::Postgres::new(address).map_err(NoAdapter::Address)?;
            Ok(Box::new(engine))
        }
        #[cfg(feature = "mysql")]
        address if address.starts_with("mysql://") => {
            let engine = mysql::MySql::new(address).map_err(NoAdapter::Address)?;
            Ok(Box::new(engine))
        }
        _ => {
            let known = NAMES.iter().find(|(begins, _)| name.starts_with(begins) || begins.starts_with(name));
            Err(known.map_or(NoAdapter::Unknown, |(_, feature)| NoAdapter::NotBuilt { feature }))
        }
    }
}

/// The nodes at these addresses, for threads; addresses of one kind of database, which can be several
/// only where they hold the same data.
///
/// # Errors
/// When an address is none, or of a database that has no servers here.
pub fn nodes(addresses: &[&str]) -> Result<Box<dyn Concurrent>, NoAdapter> {
    #[cfg(feature = "postgres")]
    if let [address] = addresses
        && address.starts_with("postgres://")
    {
        return postgres::nodes(address).map_err(NoAdapter::Address);
    }
    #[cfg(feature = "mysql")]
    if !addresses.is_empty() && addresses.iter().all(|address| address.starts_with("mysql://")) {
        return mysql::nodes(addresses).map_err(NoAdapter::Address);
    }
    let name = addresses.first().copied().unwrap_or_default();
    let known = NAMES.iter().find(|(begins, _)| begins.ends_with("://") && name.starts_with(begins));
    Err(match known {
        Some(("postgres://", _)) if addresses.len() > 1 => {
            NoAdapter::Address("PostgreSQL is one server: give one address".to_owned())
        }
        Some(_) if cfg!(feature = "mysql") || cfg!(feature = "postgres") => {
            NoAdapter::Address("several addresses must all begin with mysql://".to_owned())
        }
        Some((_, feature)) => NoAdapter::NotBuilt { feature },
        None => NoAdapter::Unknown,
    })
}

/// What no SQL database here has as one operation. (`for update` is left to each.)
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
fn lacks_beside_sql(operation: &isolde_history::schedule::Operation) -> bool {
    use isolde_history::schedule::Operation;
    match operation {
        Operation::Lock(_) | Operation::Merge { .. } => true,
        Operation::CompareAndSet { old, new, .. } => old.is_none() || new.is_none(),
        _ => false,
    }
}

impl NoAdapter {
    /// One line for whoever asked for this name.
    #[must_use]
    pub fn words(&self, name: &str) -> String {
        let names = ["isolde", "control"].into_iter().chain(NAMES.iter().map(|(name, _)| *name));
        match self {
            NoAdapter::NotBuilt { feature } => {
                format!("this build has no `{name}`: build with --features {feature}")
            }
            NoAdapter::Address(error) => format!("`{name}` is no address: {error}"),
            NoAdapter::Unknown => {
                let suggestion = crate::suggest::closest(name, names.clone());
                let hint = suggestion.map_or(String::new(), |close| format!("; did you mean `{close}`?"));
                format!("there is no database `{name}`{hint} ({})", names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(addresses: &[&str]) -> NoAdapter {
        match nodes(addresses) {
            Ok(_) => panic!("{addresses:?} are taken for nodes"),
            Err(error) => error,
        }
    }

    #[test]
    fn addresses_are_nodes_only_of_a_kind_that_can_have_them() {
        assert_eq!(refused(&[]), NoAdapter::Unknown);
        assert_eq!(refused(&["sqlite"]), NoAdapter::Unknown);
        let two = refused(&["postgres://a@127.0.0.1:1/s", "postgres://a@127.0.0.1:2/s"]);
        assert!(matches!(two, NoAdapter::Address(why) if why.contains("one server")));
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn the_nodes_of_a_cluster_are_several_addresses_of_one_kind() {
        let (one, two) = ("mysql://a@127.0.0.1:1/s", "mysql://a@127.0.0.1:2/s");
        assert!(nodes(&[one]).is_ok() && nodes(&[one, two]).is_ok());
        assert!(matches!(refused(&[one, "postgres://a@127.0.0.1:2/s"]), NoAdapter::Address(_)));
        assert!(matches!(refused(&[one, "mysql://a@127.0.0.1:port/s"]), NoAdapter::Address(_)));
    }
}
