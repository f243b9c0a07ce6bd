#!/bin/sh
# Collects the packages of RecBole 1.2.1 and RecTools 0.19.0 in a folder, to be carried to a machine without a network:
#
#     sh benchmarks/gpu_peers.sh .gpu/peers           for Python 3.12 on 64-bit Linux
#     PEERS_PYTHON=3.11 sh benchmarks/gpu_peers.sh …  for another Python
#     tar -C .gpu -cJf peers.tar.xz peers             a megabyte
#
# Only what such a machine lacks: torch, pytorch-lightning, numpy, pandas, scipy, scikit-learn, tensorboard, tqdm, psutil,
# colorama, attrs, threadpoolctl, pydantic and pyyaml are expected there. numpy 2 and pandas 3 will do
# (benchmarks/newer_packages.py). Left out is what is never imported: plotly, tabulate, ray and hyperopt of RecBole,
# implicit's GPU module (16 MB), example data.
set -eu

folder=${1:?usage: gpu_peers.sh FOLDER}
python=${PEERS_PYTHON:-3.12}
if [ -e "$folder" ]; then
    echo "$folder: is there already; remove it, or name another folder" >&2
    exit 2
fi
# Aside first, so that an interrupted run leaves no folder that looks whole.
aside="$folder.aside"
rm -rf "$aside"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
    --implementation cp --python-version "$python" \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --target "$aside" \
    'recbole==1.2.1' 'colorlog==4.7.2' 'texttable>=1.7,<2' 'thop==0.1.1.post2209072238' \
    'rectools==0.19.0' 'pm-implicit>=0.7.3,<0.8' 'typeguard>=4.1,<5'
rm -rf "$aside"/recbole/dataset_example "$aside"/implicit/gpu/_cuda*.so "$aside"/include "$aside"/bin
mv "$aside" "$folder"
du -sh "$folder"
