//! Whatever text is given as a catalog: it is one, or the errors say where it is none.

use fieldkeep_catalog::Catalog;
use fieldkeep_model::CatalogHash;

pub(crate) fn catalogs(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    match Catalog::parse(source) {
        Ok(catalog) => {
            assert_eq!(catalog.source(), source);
            assert_eq!(catalog.hash(), CatalogHash::of(source));
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
}
