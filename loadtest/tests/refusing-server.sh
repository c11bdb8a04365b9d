#!/bin/sh
# Plays a server that refuses its manifest.
echo 'manifest.yaml:3:1: unknown key `lod`' >&2
exit 64
