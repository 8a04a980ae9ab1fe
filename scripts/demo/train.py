"""A small training that checkpoints as it should: to another name, then renamed, with all of its state.

train.py PAUSE_S [STEPS EVERY]
"""
import hashlib
import os
import sys
import time

import torch

pause_s = float(sys.argv[1])
STEPS, EVERY = (int(word) for word in sys.argv[2:4] or ("120", "8"))
last = "checkpoints/last.pt"

torch.manual_seed(7)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1))
optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
first = 0
if os.path.exists(last):
    saved = torch.load(last)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    torch.set_rng_state(saved["rng"])
    first = saved["step"]
print(f"from step {first} of {STEPS}", flush=True)
for step in range(first, STEPS):
    x = torch.randn(64, 8)
    loss = ((model(x) - x.pow(2).sum(1, keepdim=True)) ** 2).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step} loss {loss.item():.4f}", flush=True)
    if (step + 1) % EVERY == 0:
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(), "step": step + 1}, last + ".tmp")
        os.rename(last + ".tmp", last)
    time.sleep(pause_s)
weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
print("final", loss.item().hex(), hashlib.sha256(weights).hexdigest()[:16])
