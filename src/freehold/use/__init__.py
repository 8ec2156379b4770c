"""Use: what an answer costs, who pays, and the record of it; the meter that wraps an engine's stream.

Functions over a ledger transaction that a flow or the writer opened. It does not know which models are kept, nor HTTP.
"""
