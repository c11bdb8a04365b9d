//! Stands between the words of an operator's request and the part of a container that they mean.
//!
//! Invariant: a request that names less than it needs is refused, and never means more than it says: a partition of
//! an isolated container is always one tenant's.

use std::sync::Arc;

use lanekeeper_actors::directory::Extent;
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::reader::Scope;
use serde_json::Value;

use super::{Admin, AdminError};
use crate::http::path::query_value;
use crate::http::problem::Problem;

/// The part of a container that is meant: all of it, one tenant's, or what a key begins with.
pub(super) fn of(
    admin: &Admin,
    container: &str,
    tenant: Option<&str>,
    partition: Option<&[Value]>,
) -> Result<Scope, Problem> {
    let container = find(admin, container)?;
    let tenant = tenant.map(TenantId::new).transpose();
    let tenant = tenant.map_err(|error| AdminError::Request(error.to_string()))?;
    if tenant.is_some() && !container.isolated {
        let why = format!("`tenant` is for isolated containers, and `{}` is shared", container.name);
        return Err(AdminError::Request(why).into());
    }
    let key = partition.unwrap_or_default().iter().map(key_part).collect::<Result<Vec<_>, _>>()?;
    let parts = container.rules.key.len();
    if key.len() > parts {
        let why = format!("the partition key of `{}` has {parts} parts, not {}", container.name, key.len());
        return Err(AdminError::Request(why).into());
    }
    if container.isolated && tenant.is_none() && !key.is_empty() {
        let why = format!("`{}` is isolated: say whose partition with `tenant`", container.name);
        return Err(AdminError::Request(why).into());
    }
    Ok(Scope { container: container.name.clone(), tenant, key })
}

/// The same from the parameters `tenant` and `partition`, a JSON array.
pub(super) fn of_query(admin: &Admin, container: &str, query: &str) -> Result<Scope, Problem> {
    let tenant = query_value(query, "tenant").transpose()?;
    let partition = query_value(query, "partition").transpose()?;
    let wrong = |_| {
        AdminError::Request("`partition` is a JSON array such as `[\"OSL-BER\"]`, percent-encoded".to_owned())
    };
    let partition: Option<Vec<Value>> =
        partition.map(|text| serde_json::from_str(&text)).transpose().map_err(wrong)?;
    of(admin, container, tenant.as_deref(), partition.as_deref())
}

/// The container of this name.
pub(super) fn find<'a>(admin: &'a Admin, name: &str) -> Result<&'a Arc<Container>, AdminError> {
    let catalog = admin.system.directory().catalog();
    catalog.get(name).ok_or_else(|| AdminError::NoContainer(name.to_owned()))
}

/// Where the documents of a scope lie.
pub(super) fn extent(admin: &Admin, scope: &Scope) -> Result<Extent, AdminError> {
    find(admin, &scope.container)?;
    let (tenant, key) = (scope.tenant.clone(), scope.key.clone());
    let address = PartitionAddress { container: scope.container.clone(), tenant, key };
    Ok(admin.system.directory().extent(&address))
}

/// As [`KeyPart::to_json`] writes it: `{}` is a property that is not there.
pub(super) fn key_part(value: &Value) -> Result<KeyPart, Problem> {
    match value {
        Value::Object(properties) if properties.is_empty() => Ok(KeyPart::Undefined),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => Ok(KeyPart::from_json(value)?),
    }
}

/// How many things are wanted: the parameter, or `default`, and never more than `most`.
pub(super) fn limit(asked: Option<u64>, default: usize, most: usize) -> Result<usize, AdminError> {
    match asked {
        None => Ok(default),
        Some(0) => Err(AdminError::Request("`limit` is 1 or more".to_owned())),
        Some(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX).min(most)),
    }
}
