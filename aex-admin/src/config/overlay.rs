//! One catalogue laid over another: an operator's own prices over the shipped ones.
//!
//! An entry replaces the one of the same provider and model, with all that it says. Names that led to
//! the replaced one, its snapshots and aliases, lead to the new one from then on, unless the upper
//! catalogue uses them otherwise: a model that got dearer is not had at its old price by another name.

use super::catalogue::{Catalogue, CatalogueModel, CatalogueProvider};

/// `upper` wins. Each of its models' providers is in one of the two.
pub(super) fn merge(base: &Catalogue, mut upper: Catalogue) -> Catalogue {
    let mut kept = Vec::new();
    for model in &base.models {
        let mut model = model.clone();
        if let Some(provider) = upper.providers.get(&model.provider) {
            model
                .snapshots
                .retain(|name| !provider.upstream.contains_key(name));
            model
                .aliases
                .retain(|name| !provider.aliases.contains_key(name));
            if let Some(&index) = provider.upstream.get(&model.upstream_model) {
                upper.models[index].snapshots.append(&mut model.snapshots);
                upper.models[index].aliases.append(&mut model.aliases);
                continue;
            }
        }
        kept.push(model);
    }
    let mut merged = Catalogue {
        version: upper.version,
        providers: base
            .providers
            .iter()
            .chain(&upper.providers)
            .map(|(name, provider)| (name.clone(), provider.without_models()))
            .collect(),
        models: upper.models.into_iter().chain(kept).collect(),
    };
    index(&mut merged);
    merged
}

/// Leads every name to its model. None is there twice: each catalogue was checked by itself, and what
/// the upper one uses was taken from the lower.
fn index(catalogue: &mut Catalogue) {
    for (index, model) in catalogue.models.iter().enumerate() {
        let Some(provider) = catalogue.providers.get_mut(&model.provider) else {
            continue;
        };
        add(provider, model, index);
    }
}

fn add(provider: &mut CatalogueProvider, model: &CatalogueModel, index: usize) {
    provider
        .upstream
        .insert(model.upstream_model.clone(), index);
    for name in &model.snapshots {
        provider.upstream.insert(name.clone(), index);
    }
    for name in &model.aliases {
        provider.aliases.insert(name.clone(), index);
    }
}
