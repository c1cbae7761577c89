//! The files of `migrations/`, in the program itself: a binary and its schema cannot come apart.

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Rises from file to file.
    pub version: i64,
    /// What it does, from the file's name.
    pub name: &'static str,
    /// SQL that does it.
    pub up: &'static str,
    /// SQL that takes it back.
    pub down: &'static str,
}

macro_rules! migration {
    ($version:literal, $file:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!(
                "../../../migrations/",
                $file,
                "_",
                $name,
                ".up.sql"
            )),
            down: include_str!(concat!(
                "../../../migrations/",
                $file,
                "_",
                $name,
                ".down.sql"
            )),
        }
    };
}

/// Every migration, oldest first.
pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001", "roles"),
    migration!(2, "0002", "tenants"),
    migration!(3, "0003", "sessions"),
    migration!(4, "0004", "nodes"),
    migration!(5, "0005", "replies"),
    migration!(6, "0006", "as_sent"),
    migration!(7, "0007", "visitor"),
    migration!(8, "0008", "claims"),
    migration!(9, "0009", "weights"),
    migration!(10, "0010", "operators"),
    migration!(11, "0011", "tenants"),
    migration!(12, "0012", "usage"),
    migration!(13, "0013", "escalation"),
    migration!(14, "0014", "answer_cache"),
    migration!(15, "0015", "notes"),
    migration!(16, "0016", "summary"),
];

/// The version this program is written for.
pub const EXPECTED_VERSION: i64 = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_listed_in_order() {
        let listed: BTreeSet<String> = MIGRATIONS
            .iter()
            .flat_map(|m| {
                ["up", "down"].map(|way| format!("{:04}_{}.{way}.sql", m.version, m.name))
            })
            .collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let present: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(listed, present);
        assert!(
            MIGRATIONS
                .windows(2)
                .all(|pair| pair[0].version < pair[1].version)
        );
        assert_eq!(MIGRATIONS.last().unwrap().version, EXPECTED_VERSION);
    }
}
