"""The HTTP edge: translates the LangSmith JSON contract to the gRPC contract of the store, and back.

Stateless. It knows protobuf, HTTP and the domain's vocabulary, never how runs are stored or found.
"""
