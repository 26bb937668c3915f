//! A session within a served module: where its paths begin, and what does not exist for it.

use std::sync::Arc;

use crate::fs::{Base, Dir, Hides};
use crate::model::RelPath;
use crate::plan::filter::{DirFilter, FilterError, FilterErrorKind, FilterPlace, Side};
use crate::plan::module::{ModulePolicy, ModuleRole};

/// The base of a session whose side in the role `role` serves the module in `root`.
///
/// Errors: a filter rule that a module cannot have.
pub fn module_base(root: Dir, policy: &ModulePolicy, role: ModuleRole) -> Result<Base, FilterError> {
    let hides = match policy.filters.is_empty() {
        true => None,
        false => Some(hides(policy, role)?),
    };
    Ok(Base::beneath(root, policy.copy_links_outside, hides))
}

fn hides(policy: &ModulePolicy, role: ModuleRole) -> Result<Arc<Hides>, FilterError> {
    let sides: &[Side] = match role {
        ModuleRole::Sender => &[Side::Sender],
        ModuleRole::Receiver => &[Side::Receiver],
        ModuleRole::Verifier => &[Side::Sender, Side::Receiver],
    };
    let filters = sides.iter().map(|&side| filter(policy, side)).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(move |path: &RelPath, is_dir| filters.iter().any(|filter| filter.verdict(path, is_dir).is_excluded())))
}

fn filter(policy: &ModulePolicy, side: Side) -> Result<DirFilter, FilterError> {
    let place = FilterPlace { side, delete_excluded: false, root_path: Vec::new(), root_is_above: false };
    let no_merge_files = |name: &[u8]| {
        FilterError::of_file(name, FilterErrorKind::Unreadable("a module has no per-directory rules".to_owned()))
    };
    let filter = DirFilter::root(&policy.filters, &place, &mut |_, name| Err(no_merge_files(name)))?;
    match filter.merge_file_names().first() {
        Some(name) => Err(no_merge_files(name)),
        None => Ok(filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::filter::FilterRules;

    fn policy(rules: &[&str]) -> ModulePolicy {
        let mut filters = FilterRules::new();
        for rule in rules {
            filters.push_filter(rule.as_bytes(), &mut |_| Err("no".into())).unwrap();
        }
        ModulePolicy { filters, ..ModulePolicy::default() }
    }

    #[test]
    fn the_owners_rules_hold_for_their_side() {
        let policy = policy(&["- /private/", "P *.keep", "H *.secret", "+ public.key", "-p *.key"]);
        let sees =
            |role, path: &str, is_dir| !hides(&policy, role).unwrap()(&RelPath::new(path.as_bytes()).unwrap(), is_dir);
        for role in [ModuleRole::Sender, ModuleRole::Receiver, ModuleRole::Verifier] {
            assert!(!sees(role, "private", true));
            assert!(sees(role, "private", false));
            assert!(sees(role, "a/private", true));
            assert!(!sees(role, "a/b.key", false));
            assert!(sees(role, "a/public.key", false));
        }
        assert!(sees(ModuleRole::Sender, "a.keep", false) && !sees(ModuleRole::Receiver, "a.keep", false));
        assert!(!sees(ModuleRole::Sender, "a.secret", false) && sees(ModuleRole::Receiver, "a.secret", false));
    }

    #[test]
    fn per_directory_rules_are_refused() {
        assert!(hides(&policy(&[": .rules"]), ModuleRole::Sender).is_err());
        assert!(hides(&policy(&[": /.rules"]), ModuleRole::Sender).is_err());
    }
}
