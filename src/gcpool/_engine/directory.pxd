cdef extern from *:
    object owned_object "gcp_owned"(void *)
    Entry owned_entry "gcp_owned"(void *)
    EndpointPool owned_pool "gcp_owned"(void *)


cdef enum:              # what add_connection() returns
    ADDED
    KNOWN_ALREADY
    NO_MEMORY


cdef struct Directory:
    Map by_identity     # [shard] address of an endpoint -> EndpointPool
    Map by_hash         # [shard] hash of an endpoint -> EndpointPool
    unsigned int added  # [atomic] how many endpoint pools there were: each slot of by_hash has its number as the hint
    Map by_spelling     # [shard] hash of another spelling of an endpoint -> EndpointPool
    Map by_connection   # [shard] address of a connection -> Entry
