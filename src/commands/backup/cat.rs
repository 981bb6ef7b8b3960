//! `stillpoint backup cat`.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use stillpoint_api::ObjectRef;

use super::ReadArgs;
use crate::{
    args::{Format, UsageError},
    exit::Exit,
    output,
};

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// The backup's name
    name: String,
    /// The object: type/namespace/name, or type/name for a cluster-scoped one
    object: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = ObjectFormat::Yaml)]
    output: ObjectFormat,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ObjectFormat {
    Yaml,
    Json,
}

pub(crate) async fn run(args: CatArgs) -> anyhow::Result<Exit> {
    let wanted: ObjectRef = args.object.parse().map_err(|error| UsageError(format!("{error}")))?;
    let (_, _, backup) = args.read.find(&args.name).await?;
    let Some((resource, object)) = backup.object(&wanted).await? else {
        bail!(
            "the backup {:?} holds no {wanted}; `backup describe {} --details` shows what it holds",
            args.name,
            args.name
        )
    };
    let value = object.value(&resource).with_context(|| format!("{wanted} in the backup is no JSON"))?;
    let format = match args.output {
        ObjectFormat::Yaml => Format::Yaml,
        ObjectFormat::Json => Format::Json,
    };
    output::print(format, &value, String::new)?;
    Ok(Exit::Done)
}
