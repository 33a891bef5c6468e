//! The admin API for machines: an OpenAPI 3.1 document, kept by hand beside this file.
//!
//! A test compares its paths with those that are answered; whether the answers are as it says is found
//! out by `tests/api/run`, which asks a running larder all that the document allows, and much that it
//! does not.

/// The document.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn paths() -> Vec<String> {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        paths.keys().cloned().collect()
    }

    /// The paths in what the admin listener's files compare targets with, tests left out.
    fn answered() -> BTreeSet<&'static str> {
        let sources = [
            include_str!("admin.rs"),
            include_str!("purges/mod.rs"),
            include_str!("purges/cloudflare.rs"),
            include_str!("purges/fastly.rs"),
            include_str!("purges/souin.rs"),
        ];
        let code = sources.map(|source| source.split("#[cfg(test)]").next().unwrap());
        let lines = code.iter().flat_map(|code| code.lines());
        let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
        let literals = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
        let path = |text: &&str| {
            let mut rest = text.bytes().skip(1);
            text.starts_with('/') && rest.all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b))
        };
        literals
            .filter(path)
            .filter(|text| text.len() > 1)
            .collect()
    }

    #[test]
    fn every_path_that_is_answered_is_described() {
        let paths = paths();
        let answered = answered();
        assert!(answered.contains("/stats"), "{answered:?}");
        for path in answered {
            let found = paths.iter().any(|described| described.contains(path));
            assert!(found, "openapi.json does not describe {path}");
        }
    }

    #[test]
    fn every_path_that_is_described_is_answered() {
        let answered = answered();
        for path in paths() {
            let fixed = path.split('{').next().unwrap();
            let found = answered
                .iter()
                .any(|text| path == **text || fixed.contains(*text));
            assert!(found, "nobody answers {path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let found = document.pointer(reference.trim_start_matches('#'));
            assert!(found.is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, references: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                let own = fields.get("$ref").and_then(Value::as_str);
                references.extend(own.map(str::to_owned));
                fields.values().for_each(|value| collect(value, references));
            }
            Value::Array(all) => all.iter().for_each(|value| collect(value, references)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
