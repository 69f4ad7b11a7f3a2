select identity from store_identity
