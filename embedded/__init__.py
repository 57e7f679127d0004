"""The servers that `headai up` starts when no URL is given: PostgreSQL, Valkey and SeaweedFS from wheels."""
