//! The kept inputs. A file's name says its route.

use std::fs;
use std::path::Path;

use aex_admin_proto::worker::Route;

pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) route: Route,
    pub(crate) bytes: Vec<u8>,
}

/// All of a kind, by name.
pub(crate) fn entries(kind: &str) -> Vec<Entry> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(kind);
    let mut entries: Vec<Entry> = fs::read_dir(directory)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let route = Route::ALL
                .into_iter()
                .find(|route| {
                    let prefix = route.path()[1..].replace('/', "_");
                    name.split('-').next() == Some(&prefix)
                })
                .unwrap();
            let bytes = fs::read(file.path()).unwrap();
            Entry { name, route, bytes }
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!entries.is_empty());
    entries
}
