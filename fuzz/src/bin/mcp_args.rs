#![no_main]

bitbrat_fuzz::target!(mcp_args);
