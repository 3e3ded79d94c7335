"""Comparisons of ways to move what a weak image-text model learnt to a strong one, as a plan in YAML says.

A `Transfers` plan (`plan`) names pools of cached features, pairs of models, data sets, ways of fine-tuning and methods.
A `TransferStudy` lists its jobs: for each of them `pools` draws labelled images and parts the classes, `moving` tunes,
extracts, moves, refines and evaluates. Results lie in the same store as those of other comparisons and become the same
tables; `summary` adds what holds for several accuracies together.
"""
