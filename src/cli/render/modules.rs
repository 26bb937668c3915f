//! A daemon's modules.

use crate::model::display_bytes;
use crate::sync::ModuleLine;

/// One line a module: name, what it allows, and the comment; or one JSON object a line.
pub(crate) fn modules(modules: &[ModuleLine], json: bool) -> String {
    let mut text = String::new();
    let width = modules.iter().map(|module| shown(&module.name).chars().count()).max().unwrap_or(0);
    for module in modules {
        if json {
            text.push_str(&serde_json::to_string(module).unwrap_or_default());
        } else {
            let access = match (module.may_read, module.may_write) {
                (true, true) => "read-write",
                (true, false) => "read-only",
                (false, true) => "write-only",
                (false, false) => "no access",
            };
            let line = format!("{:width$}  {access:10}  {}", shown(&module.name), shown(&module.comment));
            text.push_str(line.trim_end());
        }
        text.push('\n');
    }
    text
}

/// The daemon's words, made safe for a terminal.
fn shown(text: &str) -> String {
    display_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_has_its_line() {
        let module = |name: &str, comment: &str, may_read, may_write| ModuleLine {
            name: name.into(),
            comment: comment.into(),
            may_read,
            may_write,
        };
        let all = [module("data", "user files\u{1b}", true, false), module("in", "", false, true)];
        assert_eq!(modules(&all, false), "data  read-only   user files\\#033\nin    write-only\n");
        let json = modules(&all[1..], true);
        assert_eq!(json, "{\"name\":\"in\",\"comment\":\"\",\"may_read\":false,\"may_write\":true}\n");
    }
}
