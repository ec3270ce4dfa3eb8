//! Scripts and functions. [`Script`](crate::Script) runs one by its digest and sends it when the server lacks it.

macro_rules! scripts {
    ($emit:ident) => { $emit! {
        /// Runs a script. It may have written before it fails, so its errors leave open what happened.
        ["EVAL" since "2.6.0", "as the script", example "let one: i64 = client.eval(\"return redis.call('INCR', KEYS[1])\", [\"k\"], ()).await?;"]
        fn eval<T>(script: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("EVAL").arg(script).counted(keys).args_from(args);

        /// Runs a script that only reads.
        ["EVAL_RO" since "7.0.0", "as the script", example "let value: Option<String> = client.eval_ro(\"return redis.call('GET', KEYS[1])\", [\"k\"], ()).await?;"]
        fn eval_ro<T>(script: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("EVAL_RO").arg(script).counted(keys).args_from(args);

        /// Runs a script that the server has by its digest; `NOSCRIPT` when it has not.
        ["EVALSHA" since "2.6.0", "as the script", example "let n: i64 = client.evalsha(\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\", [\"k\"], ()).await?;"]
        fn evalsha<T>(digest: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("EVALSHA").arg(digest).counted(keys).args_from(args);

        /// Runs a script that only reads and that the server has by its digest.
        ["EVALSHA_RO" since "7.0.0", "as the script", example "let n: i64 = client.evalsha_ro(\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\", [\"k\"], ()).await?;"]
        fn evalsha_ro<T>(digest: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("EVALSHA_RO").arg(digest).counted(keys).args_from(args);

        /// Runs a function. It may have written before it fails, so its errors leave open what happened.
        ["FCALL" since "7.0.0", "as the function", example "let n: i64 = client.fcall(\"my_incr\", [\"k\"], ()).await?;"]
        fn fcall<T>(function: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("FCALL").arg(function).counted(keys).args_from(args);

        /// Runs a function that only reads.
        ["FCALL_RO" since "7.0.0", "as the function", example "let n: i64 = client.fcall_ro(\"my_get\", [\"k\"], ()).await?;"]
        fn fcall_ro<T>(function: impl ToArg, keys: impl ToArgs, args: impl ToArgs) -> T =
            command!("FCALL_RO").arg(function).counted(keys).args_from(args);

        /// Tells for each digest whether the server has its script.
        ["SCRIPT EXISTS" since "2.6.0", "O(N) in digests", example "let there = client.script_exists([\"e0e1f9fabfc9d4800c877a703b823ac0578ff8db\"]).await?;"]
        fn script_exists(digests: impl ToArgs) -> Vec<bool> = command!("SCRIPT").arg("EXISTS").args_from(digests);

        /// Gives a script to the server without running it; gives its digest.
        ["SCRIPT LOAD" since "2.6.0", "O(N) in its length", example "let digest = client.script_load(\"return 1\").await?;"]
        fn script_load(script: impl ToArg) -> String = command!("SCRIPT").arg("LOAD").arg(script);
    } };
}

pub(super) use scripts;
