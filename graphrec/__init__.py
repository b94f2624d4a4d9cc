"""Graph recommenders on heterogeneous graphs: datasets to graphs, training, ranking, explanation, forgetting."""
