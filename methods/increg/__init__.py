"""IncReg: incremental regularisation."""
