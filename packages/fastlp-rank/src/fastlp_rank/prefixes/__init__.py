"""The best single ranking whose every prefix holds so many items of each group: exact, with a proof, without an LP."""
